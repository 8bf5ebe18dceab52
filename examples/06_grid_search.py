"""Inside scikit-learn: GridSearchCV chooses the scaling of the columns and the network."""

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from gpumlp.estimators import MLPClassifier

x, y = load_breast_cancer(return_X_y=True, as_frame=True)
x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)

scaler = {"standard": StandardScaler(), "ranks": QuantileTransformer(n_quantiles=100)}
net = MLPClassifier(batch_size=32, tol=1e-3, class_weight="balanced", random_state=0)
search = GridSearchCV(
    Pipeline([("scale", None), ("net", net)]),
    {
        "scale": list(scaler.values()),
        "net__hidden_layer_sizes": [(32,), (64, 64)],
        "net__activation": ["relu", "gelu"],
    },
    scoring="roc_auc",
    cv=3,
)
search.fit(x, y)

print(f"{'scaling':<10}{'hidden layers':<15}{'activation':<12}{'area under the curve':>20}")
found = search.cv_results_
for i in found["rank_test_score"].argsort():
    chosen = found["params"][i]
    name = next(name for name, value in scaler.items() if value is chosen["scale"])
    print(
        f"{name:<10}{chosen['net__hidden_layer_sizes']!s:<15}{chosen['net__activation']:<12}"
        f"{found['mean_test_score'][i]:>20.4f}"
    )
score = search.score(x_test, y_test)
print(f"the best network on {len(x_test)} new patients: {score:.4f}")
