"""Inside a torch model: FusedMLP replaces a Sequential of Linear and activation.

Each of 40 cities has a warmth that the model does not see.  Its inputs are the city's index and the
day of the year.  It must learn a number for each city, by FusedMLP's gradients and torch's AdamW.
"""

import torch
from torch import nn

from gpumlp.interop.torch import FusedMLP, softmax_cross_entropy

CITIES, KINDS = 40, 3  # of weather: cold, mild, hot


class Weather(nn.Module):
    """Computes the logits of the weather from a city and a day."""

    def __init__(self):
        super().__init__()
        self.city = nn.Embedding.from_pretrained(torch.zeros(CITIES, 1), freeze=False)
        self.mlp = FusedMLP([3, 64, 64, KINDS], activation="gelu")

    def forward(self, city, day):
        """Return logits (m, KINDS) for city (m,), from 0, and day (m,), in years."""
        season = torch.stack([torch.sin(2 * torch.pi * day), torch.cos(2 * torch.pi * day)], dim=1)
        return self.mlp(torch.cat([self.city(city), season], dim=1))


torch.manual_seed(0)
warmth = torch.linspace(-10, 10, CITIES)[torch.randperm(CITIES)]
city, day = torch.randint(CITIES, (8000,)), torch.rand(8000)
degrees = 12 + warmth[city] - 10 * torch.cos(2 * torch.pi * day) + torch.randn(8000)
y = torch.bucketize(degrees, torch.tensor([8.0, 18.0]))

model = Weather()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(4):
    for rows in torch.randperm(7000).split(100):
        optimizer.zero_grad()
        softmax_cross_entropy(model(city[rows], day[rows]), y[rows]).backward()
        optimizer.step()

with torch.no_grad():
    right = model(city[7000:], day[7000:]).argmax(dim=1) == y[7000:]
    print(f"accuracy on new days: {right.float().mean():.3f}")

    r = torch.corrcoef(torch.stack([model.city.weight[:, 0], warmth]))[0, 1].abs()
    print(f"correlation of the learnt numbers with the warmth: {r:.3f}")

    linear, act = nn.Linear, lambda: nn.GELU(approximate="tanh")
    plain = nn.Sequential(linear(3, 64), act(), linear(64, 64), act(), linear(64, KINDS))
    plain.load_state_dict(model.mlp.state_dict())  # the same names and shapes
    theirs, ours = plain(x := torch.randn(1000, 3)), model.mlp(x)
    print(f"difference from torch's own layers: {(ours - theirs).norm() / theirs.norm():.0e}")
