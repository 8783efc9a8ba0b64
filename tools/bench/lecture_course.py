"""The lecture's MNIST example with the course's own code: what notebook 05 does, as a benchmark."""

import json
import time

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from tools.definitions import definitions
from utils import course
from utils.data import load_mnist, load_parity
from utils.plotting import plot_curves, show, show_images

course.setup(seed=0)
names = definitions("05")
accuracy = names["accuracy"]
imports = time.process_time()


@torch.no_grad()
def metrics(model):
    val_loss = binary_cross_entropy_with_logits(model(val_set.X), val_set.y).item()
    return val_loss, accuracy(model, train_set), accuracy(model, val_set)


train_set, val_set, _ = load_parity(load_mnist(), seed=0)
captions = [f"{d}: {'odd' if d % 2 else 'even'}" for d in train_set.digit[:16].tolist()]
show(show_images(train_set.X[:16], captions, columns=8).figure, "Sixteen digits.")

models, steps = [], range(0, 1000, 10)
fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.2))
for name in ("Logistic", "SimpleNN"):
    torch.manual_seed(0)
    models.append(names[name]())
    losses, scores = names["train"](
        models[-1], train_set.X, train_set.y, lr=0.01, num_steps=1000, every=10, evaluate=metrics
    )
    curves = torch.tensor([losses[::10], *zip(*scores, strict=True)])
    for k, what in enumerate(["loss", "validation loss", "accuracy", "validation accuracy"]):
        plot_curves(steps, curves[k : k + 1], f"{name}, {what}", axes[k // 2])
    for step, row in zip(steps, curves.T.tolist(), strict=True):
        print("step {:4}  loss {:.4f} {:.4f}  accuracy {:.3f} {:.3f}".format(step, *row))
show(fig, "Losses and accuracies of both models.")

sizes = [len(train_set.y), len(val_set.y)]
sizes += [sum(p.numel() for p in model.parameters()) for model in models]
scores = [accuracy(model, val_set) for model in models]
print(json.dumps({"imports": imports, "sizes": sizes, "accuracy": scores}))
