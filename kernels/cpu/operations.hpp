// The operations of a step on the CPU, as templates of an entry's functions.
#pragma once

#include "products.hpp"
#include "activations.hpp"
#include "blocks.hpp"
#include "columns.hpp"
#include "embeddings.hpp"
#include "losses.hpp"
#include "theta.hpp"
#include "minibatches.hpp"
#include "rows.hpp"
