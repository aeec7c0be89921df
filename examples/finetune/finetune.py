"""100 labels: does training the encoder further beat a linear probe on its embeddings? On several seeds, and from scratch too.

Nothing of dier is imported: a registered model carries its code. It needs mlflow, torch, numpy and scikit-learn, a registered
model, and the dataset artifact that it was trained on: train gives the labelled images, and test is read at the end.

    python examples/finetune/finetune.py models:/dier@champion artifacts/dataset

All three get the same 100 images, 10 a class, one of each original. Fine-tuning starts from the probe as its last layer (LP-FT,
arXiv 2202.10054), since a random one would first undo what the encoder knows.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import mlflow
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegressionCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

STEPS, BATCH = 150, 50
ENCODER_RATE, HEAD_RATE, SCRATCH_RATE = 1e-3, 1e-3, 3e-4
"""The first and last chosen on val (--split val) with seeds 100 to 102, of 1e-4, 3e-4 and 1e-3."""


def labelled(dataset: Path, seed: int, number: int) -> np.ndarray:
    """Rows of train: as many of each class as of the others, no two of one original, `number` in all."""
    info = json.loads((dataset / "dataset.json").read_text("utf-8"))
    labels, copies = np.load(dataset / "train" / "labels.npy"), info.get("copies", 1)
    originals = np.random.default_rng(seed).permutation(len(labels) // copies)
    each = number // len(info["class_names"])
    chosen = [originals[labels[originals * copies] == k][:each] for k in range(len(info["class_names"]))]
    return np.sort(np.concatenate(chosen) * copies)


@torch.no_grad()
def run(module: nn.Module, x: Tensor) -> Tensor:
    """The module's output on many images, in evaluation mode."""
    module.eval()
    return torch.cat([module(part) for part in x.split(500)])


def probe(v: Tensor, y: Tensor, seed: int) -> nn.Linear:
    """Logistic regression on standardised embeddings, its penalty by cross-validation, as one linear layer."""
    scaler = StandardScaler().fit(v.numpy())
    found = LogisticRegressionCV(
        Cs=np.logspace(-4, 2, 7),
        cv=5,
        l1_ratios=(0,),
        scoring="accuracy",
        max_iter=2000,
        random_state=seed,
        use_legacy_attributes=False,
    ).fit(scaler.transform(v.numpy()), y.numpy())
    weight = found.coef_ / scaler.scale_
    bias = found.intercept_ - weight @ scaler.mean_
    if len(weight) == 1:  # of two classes scikit-learn has the second's logit alone, over a first one of 0
        weight, bias = (np.concatenate([np.zeros_like(values), values]) for values in (weight, bias))
    head = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head


def train(encoder: nn.Module, head: nn.Linear, x: Tensor, y: Tensor, seed: int, rate: float, steps: int) -> nn.Module:
    """Train both on the labelled images, the encoder at `rate`, with cosine decay."""
    network = nn.Sequential(encoder, head).train()
    groups = [
        {"params": [p for p in encoder.parameters() if p.requires_grad], "lr": rate},
        {"params": head.parameters(), "lr": HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randperm(len(x), generator=draw)[:BATCH]
        loss = F.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def from_scratch(encoder: nn.Module, seed: int) -> nn.Module:
    """The same network with new weights."""
    torch.manual_seed(seed)
    new = copy.deepcopy(encoder)
    for module in new.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm | nn.GroupNorm):
            module.reset_parameters()
    new.encoder.initialise()
    return new


def main() -> None:
    """Compare, and say who won."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--split", default="test", help="where accuracy is measured; val while choosing rates")
    given = parser.parse_args()

    encoder = mlflow.pyfunc.load_model(given.model).unwrap_python_model().encoder.cpu()
    train_images = np.load(given.dataset / "train" / "images.npy", mmap_mode="r")
    train_labels = np.load(given.dataset / "train" / "labels.npy")
    held_x = encoder.scale(torch.from_numpy(np.load(given.dataset / given.split / "images.npy")))
    held_y = torch.from_numpy(np.load(given.dataset / given.split / "labels.npy"))
    held_v, start, rows = run(encoder, held_x), time.perf_counter(), []
    print(f"{'seed':>4} {'probe':>8} {'tuned':>8} {'scratch':>8}   accuracy on {given.split}, {given.labels} labels")
    for seed in given.seeds:
        chosen = labelled(given.dataset, seed, given.labels)
        x, y = encoder.scale(torch.from_numpy(train_images[chosen])), torch.from_numpy(train_labels[chosen])
        head = probe(run(encoder, x), y, seed)
        tuned = train(copy.deepcopy(encoder), copy.deepcopy(head), x, y, seed, ENCODER_RATE, given.steps)
        blank = nn.Linear(head.in_features, head.out_features)
        scratch = train(from_scratch(encoder, seed), blank, x, y, seed, SCRATCH_RATE, given.steps)
        outputs = [run(head, held_v), run(tuned, held_x), run(scratch, held_x)]
        rows.append([(out.argmax(1) == held_y).float().mean().item() for out in outputs])
        print(f"{seed:>4} " + " ".join(f"{value:>8.4f}" for value in rows[-1]), flush=True)
    figures = np.array(rows)
    print("mean " + " ".join(f"{value:>8.4f}" for value in figures.mean(0)))
    difference = figures[:, 1] - figures[:, 0]
    spread = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else float("nan")
    verdict = "beats" if difference.mean() > 2 * spread else "loses to" if difference.mean() < -2 * spread else "is no better than"
    print(f"fine-tuning {verdict} the probe: {100 * difference.mean():+.2f} points, standard error {100 * spread:.2f} over seeds")
    print(f"{time.perf_counter() - start:.0f} s on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
