"""One optimiser of several: from a loss to a step, with its own scaler, its own clipping, its own micro-batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from repae.config import Config, UserError
from repae.runtime.precision import Precision, float32
from repae.runtime.schedules import Constant, Schedule

_Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamWConfig(Config):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with the values of REPA-E, arXiv 2504.10483, for all players.

    Attributes:
        lr: learning rate that the schedule multiplies.
        betas: decay of the first and the second moment.
        weight_decay: decoupled, per unit of learning rate.
        eps: added to the root of the second moment.
        max_grad_norm: gradients with a larger norm over all parameters are scaled down to it; None leaves them.
        schedule: factor of the learning rate at each update.
    """

    lr: NonNegativeFloat = 1e-4
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    eps: PositiveFloat = 1e-8
    max_grad_norm: PositiveFloat | None = 1.0
    schedule: Schedule = Constant()


class Optimiser:
    """Minimises the losses it is called with, over the parameters it was given.

    Each call is one micro-batch; the ``accumulate``-th one makes the update with the mean of their gradients. Several
    optimisers may take turns: each touches its own parameters and its own loss scale only. A gradient that is not
    finite never reaches the weights or the moments: that update is left out and counted on the device (in fp16 the
    loss scale falls as well, so that a passing overflow costs one update).

    The learning rate follows the number of updates tried, left-out ones included: their number is known only to the
    device, and nobody waits for it.

    Attributes:
        updates: tried so far.
        skipped: those left out because of a gradient that was not finite: an int64 scalar on the device.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        config: AdamWConfig,
        precision: Precision,
        *,
        accumulate: int = 1,
        total_steps: int,
    ) -> None:
        assert accumulate >= 1 and total_steps >= 1, f"accumulate {accumulate}, total_steps {total_steps}"
        self.config = config
        self.accumulate = accumulate
        self.total_steps = total_steps
        self.parameters = [parameter for parameter in params if parameter.requires_grad]
        assert self.parameters, "an optimiser needs parameters that require gradients"
        device = self.parameters[0].device
        # One of its own: a shared scale would change under gradients that the others have only begun to gather.
        self._scaler = precision.scaler()
        # The fused kernel takes the verdict on the gradients as a tensor; elsewhere the host has to ask for it.
        self._fused = device.type in ("cpu", "cuda")
        self._adamw = torch.optim.AdamW(
            self.parameters,
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True if self._fused else None,
        )
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.updates = 0
        self._micro = 0
        self._unscaled = False

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self.config.lr * self.config.schedule.factor(self.updates, self.total_steps)

    def __call__(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""] | None:
        """Take one micro-batch's mean loss; on the last one of an update, make it.

        Returns:
            The norm of the accumulated gradient before clipping, a float32 scalar on the device, or None in between.
        """
        self.backward(loss)
        return self.update() if self._micro == self.accumulate else None

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Add the gradient of ``loss / accumulate``, in fp16 times the loss scale, to what has been accumulated."""
        assert loss.requires_grad, (
            "this loss depends on no trainable parameter: a term of weight zero must be left out or kept in the graph"
        )
        assert self._micro < self.accumulate, "all micro-batches are in: update() comes before the next backward()"
        assert not self._unscaled, "the accumulated gradients are unscaled: update() comes before the next backward()"
        assert loss.dtype in (torch.float32, torch.float64), f"losses are computed in float32, not {loss.dtype}"
        with float32():
            share = loss / self.accumulate
            (share if self._scaler is None else self._scaler.scale(share)).backward()
        self._micro += 1

    def unscale(self) -> None:
        """Bring the accumulated gradients to their true size before they are read; a second call does nothing."""
        if self._scaler is not None and not self._unscaled:
            self._scaler.unscale_(self._adamw)
        self._unscaled = True

    def update(self) -> Float[Tensor, ""]:
        """Clip, step, forget the gradients, go on in the schedule; returns the norm before clipping."""
        assert self._micro == self.accumulate, f"{self._micro} of {self.accumulate} micro-batches are in"
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        assert gradients, "the loss reached none of this optimiser's parameters"
        self.unscale()
        # Of the unscaled gradients; inf or nan here is the verdict on the whole update.
        norm = nn.utils.get_total_norm(gradients)
        if self.config.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.max_grad_norm, norm)
        for group in self._adamw.param_groups:
            group["lr"] = self.learning_rate
        self._step(norm)
        if self._scaler is not None:
            self._scaler.update()
        self._adamw.zero_grad(set_to_none=True)
        self.updates += 1
        self._micro = 0
        self._unscaled = False
        return norm

    def _step(self, norm: Tensor) -> None:
        # A tensor: asking the device for the answer would stop the host at every update.
        refused = ~norm.isfinite()
        self.skipped += refused
        if self._fused:
            # The same two attributes by which torch's own GradScaler tells a fused optimiser to leave a step out.
            self._adamw.grad_scale = None  # type: ignore[attr-defined]
            self._adamw.found_inf = refused.float()  # type: ignore[attr-defined]
            self._adamw.step()
        elif not refused:
            self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Moments, loss scale and counters; only between updates. The settings stay with the config."""
        assert self._micro == 0, "a checkpoint in the middle of an accumulation would lose its micro-batches"
        return {
            # Without the groups: rates and betas are for the recipe to say.
            "moments": self._adamw.state_dict()["state"],
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "updates": self.updates,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict` of an optimiser of the same parameters and the same precision.

        Raises:
            UserError: it is one of other parameters, or of fp16 while this run is not (or the reverse).
        """
        moments = state_dict["moments"]
        for position, moment in moments.items():
            seen = tuple(moment["exp_avg"].shape)
            here = tuple(self.parameters[position].shape) if position < len(self.parameters) else "none"
            if seen != here:
                raise UserError(
                    f"the optimiser state of parameter {position} has shape {seen}, the parameter {here}; "
                    "it belongs to another model: use the recipe that wrote it"
                )
        if (self._scaler is None) != (state_dict["scaler"] is None):
            wrote, here = ("fp16", "bf16 or fp32") if self._scaler is None else ("bf16 or fp32", "fp16")
            raise UserError(
                f"the optimiser state was written in {wrote} and this run's precision is {here}; only fp16 has a loss "
                f"scale, so set runtime.precision to {wrote}"
            )
        # A moment is paired with its parameter by memory, so it takes that parameter's order of memory.
        for position, moment in moments.items():
            for name in ("exp_avg", "exp_avg_sq"):
                moment[name] = torch.empty_like(self.parameters[position]).copy_(moment[name])
        self._adamw.load_state_dict({"state": moments, "param_groups": self._adamw.state_dict()["param_groups"]})
        if self._scaler is not None:
            self._scaler.load_state_dict(state_dict["scaler"])
        self.updates = state_dict["updates"]
        self.skipped.copy_(state_dict["skipped"])
        self._micro = 0
        self._unscaled = False
