"""How far two engines are apart."""

from torch import Tensor


def error(found: Tensor, right: Tensor) -> float:
    """Largest difference where there is an answer."""
    return (found - right)[right != 0].abs().max().item()


def farthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest difference of any weight; infinite when the names differ."""
    if ours.keys() != theirs.keys():
        return float("inf")
    return max((ours[name].float() - theirs[name].float()).abs().max().item() for name in ours)


def average(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Mean difference over all weights."""
    apart = sum((ours[name].float() - theirs[name].float()).abs().sum().item() for name in theirs)
    return apart / sum(value.numel() for value in theirs.values())


def differences(ours: dict, theirs: dict) -> dict:
    """Of what engines.updated gives. Log-probabilities are None and losses empty on ranks that have none.

    Weights are compared by the mean: where a gradient is nearly zero Adam steps by its sign, and one rounding error
    away from zero is a whole step.
    """
    numbers = list(zip(ours["steps"], theirs["steps"], strict=True))
    kinds = [name for name in ("lr", "grad_norm") if name in ours["steps"][0]]
    return {
        "names": ours["weights"].keys() == theirs["weights"].keys(),
        "steps": max(abs(a[name] - b[name]) / max(abs(b[name]), 1e-9) for a, b in numbers for name in kinds),
        "losses": [[a["loss"], b["loss"]] for a, b in numbers if "loss" in a],
        "log_probs": None if ours["log_probs"] is None else error(ours["log_probs"], theirs["log_probs"]),
        "weights": average(ours["weights"], theirs["weights"]),
    }
