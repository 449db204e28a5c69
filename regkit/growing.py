"""Growing (section 8.6): cascade-correlation, a network that adds one hidden unit after another.

Training the outputs takes turns with training a pool of candidates for the next hidden unit. The
best candidate is installed, and its incoming weights never change again.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from regkit._check import require, require_nonnegative, require_positive, require_weights
from regkit.training import progress

# Step sizes and stopping rules of the authors' own program, for two spirals. The step size of the
# outputs is divided by N, that of a candidate by N and by the number of its incoming weights.
OUTPUT_LR, CANDIDATE_LR, ADAM_LR = 1.0, 100.0, 0.05
OUTPUT_WAIT, CANDIDATE_WAIT = 12, 8  # epochs without a change before a phase ends
OUTPUT_CHANGE, CANDIDATE_CHANGE = 0.01, 0.03  # what counts as a change, relative


def symmetric_sigmoid(s: Tensor) -> tuple[Tensor, Tensor]:
    r"""The unit's function :math:`f(s) = 1/(1 + e^{-s}) - 1/2` and :math:`f' = 1/4 - f^2`.

    Args:
        s: pre-activations, of any shape.

    Returns:
        Activations in (-1/2, 1/2), and derivatives, of the same shape.

    Example:
        >>> symmetric_sigmoid(torch.tensor([0.0]))
        (tensor([0.]), tensor([0.2500]))
    """
    a = torch.sigmoid(s) - 0.5
    return a, 0.25 - a**2


def covariance(a: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    r"""The score of candidates, :math:`C = \sum_k |\sum_n (a^n - \bar a)(e_k^n - \bar e_k)|`.

    Args:
        a: activations of P candidates, of shape (P, N).
        errors: of shape (N, K).

    Returns:
        Scores of shape (P,) and their derivatives with respect to the activations,
        :math:`\sum_k \mathrm{sgn}(\mathrm{cov}_k)(e_k^n - \bar e_k)`, of shape (P, N).

    Raises:
        ValueError: if the shapes do not fit.

    Reference:
        Fahlman & Lebiere (1990), The cascade-correlation learning architecture, equation 1.

    Example:
        >>> a = torch.tensor([[0.0, 1.0], [0.0, -2.0]])
        >>> covariance(a, errors=torch.tensor([[1.0], [2.0]]))[0]
        tensor([0.5000, 1.0000])
    """
    _require_samples(a, errors)
    centered = errors - errors.mean(0)  # (N, K)
    cov = a @ centered  # (P, K)
    return cov.abs().sum(1), cov.sign() @ centered.T


def error_drop(a: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    r"""What a unit takes off a sum of squared errors,
    :math:`\sum_k \mathrm{cov}_k^2 / \sum_n (a^n - \bar a)^2`.

    The outputs are linear, their biases are refitted, and their other weights stay.

    Args:
        a: activations of P candidates, of shape (P, N); a constant one takes off nothing.
        errors: of shape (N, K).

    Returns:
        Drops of shape (P,) and their derivatives with respect to the activations, (P, N).

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> drop, _ = error_drop(torch.tensor([[0.0, 1.0]]), errors=torch.tensor([[1.0], [2.0]]))
        >>> drop  # a straight line meets both errors
        tensor([0.5000])
    """
    _require_samples(a, errors)
    centered = errors - errors.mean(0)  # (N, K)
    b = a - a.mean(1, keepdim=True)  # (P, N)
    cov = b @ centered  # (P, K)
    square = (b**2).sum(1, keepdim=True).clamp_min(torch.finfo(a.dtype).tiny)  # (P, 1)
    drop = (cov**2).sum(1, keepdim=True) / square  # (P, 1)
    return drop[:, 0], 2 * (cov @ centered.T - drop * b) / square


def _require_samples(a: Tensor, errors: Tensor) -> None:
    fit = a.ndim == 2 and errors.ndim == 2 and a.shape[1] == errors.shape[0]
    shapes = f"shapes {tuple(a.shape)} and {tuple(errors.shape)}"
    require(fit, "a must be (P, N) and errors (N, K)", shapes)


Criterion = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def score_gradient(
    w: Tensor, z: Tensor, errors: Tensor, criterion: Criterion = covariance
) -> tuple[Tensor, Tensor]:
    r"""Scores of candidates, and their gradient
    :math:`\sum_k \mathrm{sgn}(\mathrm{cov}_k) \sum_n (e_k^n - \bar e_k) f'(s^n) z_j^n`.

    Args:
        w: incoming weights of P candidates, of shape (P, J).
        z: what the candidates receive: 1, inputs, hidden units; of shape (N, J).
        errors: of shape (N, K).
        criterion: ``covariance``, or ``error_drop``.

    Returns:
        Scores of shape (P,) and gradients of shape (P, J).

    Raises:
        ValueError: if the shapes do not fit.

    Reference:
        Fahlman & Lebiere (1990), equation 2.

    Example:
        >>> z, errors = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]])
        >>> score_gradient(torch.zeros(1, 1), z, errors)  # at a kink: no covariance yet
        (tensor([0.]), tensor([[0.]]))
    """
    fit = w.ndim == 2 and z.ndim == 2 and w.shape[1] == z.shape[1]
    shapes = f"shapes {tuple(w.shape)} and {tuple(z.shape)}"
    require(fit, "w must be (P, J) and z (N, J)", shapes)
    a, slope = symmetric_sigmoid(w @ z.T)  # (P, N)
    score, by_activation = criterion(a, errors)
    return score, (by_activation * slope) @ z


class Quickprop(torch.optim.Optimizer):
    r"""Jump to the minimum of a parabola through two slopes, :math:`d \leftarrow d\,g/(g_{-} - g)`.

    Each weight goes its own way: g is its slope now, :math:`g_-` its slope before, d its last step.
    The jump is at most mu times as long as the last step; as long as the slope points the same way,
    :math:`-\mathrm{lr}\,g` comes on top.

    Args:
        params: as for any torch optimizer.
        lr: size of the plain gradient steps, positive: the first one, and what comes on top.
        mu: how many times longer a jump may be than the step before, positive.

    Raises:
        ValueError: if lr or mu is not positive and finite.

    Reference:
        Fahlman (1988), An empirical study of learning speed in back-propagation networks.

    Example:
        >>> w = torch.tensor([4.0], requires_grad=True)
        >>> optimizer = Quickprop([w], lr=0.1)
        >>> for _ in range(5):
        ...     optimizer.zero_grad()
        ...     ((w - 1) ** 2).sum().backward()
        ...     optimizer.step()
        >>> w
        tensor([1.], requires_grad=True)
    """

    def __init__(self, params: "torch.optim.optimizer.ParamsT", lr: float, mu: float = 2.0) -> None:
        require_positive("lr", lr)
        require_positive("mu", mu)
        super().__init__(params, {"lr": lr, "mu": mu})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self._step(w, w.grad, self.state[w], group["lr"], group["mu"])

    @staticmethod
    def _step(w: Tensor, slope: Tensor, state: dict[str, Tensor], lr: float, mu: float) -> None:
        g = slope.clone()
        last, d = state.get("slope", g), state.get("step", torch.zeros_like(g))
        steep = g * d.sign() <= -mu / (1 + mu) * last.abs()  # the parabola's jump is over mu d
        parabola = torch.where(steep, mu * d, d * g / (last - g))
        d = torch.where(d == 0, 0.0, parabola) - torch.where(g * d <= 0, lr * g, 0.0)
        state["slope"], state["step"] = g, d
        w += d


class Phase(NamedTuple):
    """One phase of the growth of a network.

    Attributes:
        kind: "outputs" or "candidates".
        units: number of hidden units that are installed during the phase.
        values: an entry an epoch. For outputs the loss before each of E epochs, (E,). For P
            candidates the scores before each epoch and after the last one, divided by the sum of
            the squared errors, (E, P); the highest in the last row is that of the installed unit.
    """

    kind: Literal["outputs", "candidates"]
    units: int
    values: Tensor


def cascade(x: Tensor, input_weights: list[Tensor]) -> Tensor:
    r"""All that the outputs receive, :math:`\mathbf{z} = (1, \mathbf{x}, a_1, \dots, a_M)`.

    Unit m sees the one, the inputs and the units before it:
    :math:`a_m = f(\sum_{j \le D + m} w_{mj} z_j)`, counted from 0.

    Args:
        x: inputs, of shape (N, D).
        input_weights: of unit m = 0, 1, ..., M - 1, of shape (1 + D + m,) each.

    Returns:
        Tensor of shape (N, 1 + D + M).

    Raises:
        ValueError: if x is not (N, D), or a unit has not one weight for each of its inputs.

    Example:
        >>> x = torch.tensor([[2.0]])
        >>> cascade(x, [torch.zeros(2), torch.zeros(3)])
        tensor([[1., 2., 0., 0.]])
    """
    require(x.ndim == 2, "x must have shape (N, D)", tuple(x.shape))
    z = torch.cat([x.new_ones(len(x), 1), x], 1)
    for m, w in enumerate(input_weights):
        require(len(w) == z.shape[1], f"unit {m} must have {z.shape[1]} incoming weights", len(w))
        z = torch.cat([z, symmetric_sigmoid(z @ w)[0][:, None]], 1)
    return z


class CascadeCorrelation:
    """A network that grows: its output layer is trained, then a hidden unit is added, and again.

    The outputs are linear (squared error, solved by least squares), softmax (cross-entropy), or
    symmetric sigmoids (squared error, as in the paper; targets are -1/2 and 1/2, and two classes
    have one output). Growth stops at ``max_units``, or earlier by ``tolerance`` or ``patience``.

    Args:
        output: "linear" for regression; "softmax" or "sigmoid" for classification.
        optimizer: "quickprop" or "adam", of the candidates, and of outputs that are not linear.
        pool: number P of candidates.
        max_units: largest number M of hidden units.
        tolerance: growth stops when all errors are smaller than this; None for never. The paper
            has 0.4.
        patience: growth stops when this many units in a row have not lowered the loss by one in
            a hundred; None for never.
        max_epochs: longest phase.
        criterion: what candidates maximize: ``covariance``, or ``error_drop``.
        raw_error: whether candidates look at the error itself, as in the lecture, or at the error
            times the slope of the output, as in the paper. It matters for sigmoid outputs only.
        offset: added to the slope of sigmoid outputs.
        generator: source of the first weights; torch's global one if None.

    Attributes:
        input_weights_: of each hidden unit, a list of tensors of shape (1 + D + m,).
        output_weights_: after 0, 1, ..., M units, a list of tensors of shape (K, 1 + D + m).
        losses_: loss after 0, 1, ..., M units, of shape (M + 1,): half the squared error summed
            over the outputs, or cross-entropy, as a mean over the samples.
        validation_losses_: the same on validation data, if there are any, else None.
        units_: number of units that ``predict`` uses: all, or those with the least validation loss.
        history_: a list of ``Phase``.

    Raises:
        ValueError: if an argument leaves its range.

    Reference:
        Fahlman & Lebiere (1990), The cascade-correlation learning architecture.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> xor = torch.tensor([0, 1, 1, 0])
        >>> model = CascadeCorrelation(
        ...     "sigmoid", tolerance=0.4, generator=torch.Generator().manual_seed(0)
        ... )
        >>> model.fit(x, xor).predict(x), model.units_
        (tensor([0, 1, 1, 0]), 1)
    """

    input_weights_: list[Tensor]
    output_weights_: list[Tensor]
    losses_: Tensor
    validation_losses_: Tensor | None
    units_: int
    history_: list[Phase]

    def __init__(
        self,
        output: Literal["linear", "softmax", "sigmoid"],
        optimizer: Literal["quickprop", "adam"] = "quickprop",
        pool: int = 8,
        max_units: int = 25,
        tolerance: float | None = None,
        patience: int | None = None,
        max_epochs: int = 100,
        criterion: Criterion = covariance,
        raw_error: bool = False,
        offset: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        kinds, optimizers = ("linear", "softmax", "sigmoid"), ("quickprop", "adam")
        require(output in kinds, f"output must be one of {kinds}", repr(output))
        require(optimizer in optimizers, f"optimizer must be one of {optimizers}", repr(optimizer))
        for name, count, least in [
            ("pool", pool, 1),
            ("max_units", max_units, 0),
            ("max_epochs", max_epochs, 1),
            ("patience", 1 if patience is None else patience, 1),
        ]:
            whole = isinstance(count, int) and count >= least
            require(whole, f"{name} must be an integer >= {least}", count)
        if tolerance is not None:
            require_positive("tolerance", tolerance)
        require_nonnegative("offset", offset)
        self.output = output
        self.optimizer = optimizer
        self.pool = pool
        self.max_units = max_units
        self.tolerance = tolerance
        self.patience = patience
        self.max_epochs = max_epochs
        self.criterion = criterion
        self.raw_error = raw_error
        self.offset = offset
        self.generator = generator

    @torch.no_grad()
    def fit(
        self, x: Tensor, y: Tensor, validation: tuple[Tensor, Tensor] | None = None
    ) -> "CascadeCorrelation":
        """Grow a network.

        Args:
            x: inputs, of shape (N, D), floating point.
            y: targets. For regression of shape (N,) or (N, K), of the inputs' dtype. For
                classification labels 0, 1, ..., K - 1, of shape (N,).
            validation: inputs and targets like these, on which ``patience`` and ``units_`` look
                instead of the training data; None for none.

        Returns:
            The estimator itself.

        Raises:
            ValueError: if shapes, dtypes, labels or values are not as described. The estimator is
                unchanged then.
        """
        targets = self._targets(x, y)  # (N, K)
        if validation is not None:
            held_out_x, held_out = validation[0], self._targets(*validation, like=(x, targets))
            held_out_z = cascade(held_out_x, [])
        z = cascade(x, [])  # (N, J), J grows with the units
        v = self._uniform(targets.shape[1], z)  # (K, J)
        hidden: list[Tensor] = []
        outputs: list[Tensor] = []
        history: list[Phase] = []
        losses: list[float] = []
        validation_losses: list[float] = []
        for units in progress(range(self.max_units + 1), desc="units"):
            v, values = self._train_outputs(v, z, targets)
            outputs.append(v)
            history.append(Phase("outputs", units, values))
            losses.append(self._loss(z @ v.T, targets).item())
            if validation is not None:
                validation_losses.append(self._loss(held_out_z @ v.T, held_out).item())
            errors = self._activate(z @ v.T) - targets  # (N, K)
            if units == self.max_units or self._stop(errors, targets, validation_losses or losses):
                break
            errors = self._errors(z @ v.T, targets)
            w, values = self._train_candidates(z, errors)
            hidden.append(w)
            history.append(Phase("candidates", units, values))
            a = symmetric_sigmoid(z @ w)[0]  # (N,)
            z, v = torch.cat([z, a[:, None]], 1), torch.cat([v, _regress(errors, a)[:, None]], 1)
            if validation is not None:
                held_out_z = cascade(held_out_x, hidden)
        self._flat = y.ndim == 1
        self.input_weights_, self.output_weights_, self.history_ = hidden, outputs, history
        self.losses_ = torch.tensor(losses, dtype=x.dtype)
        self.validation_losses_ = None
        self.units_ = len(losses) - 1
        if validation is not None:
            self.validation_losses_ = torch.tensor(validation_losses, dtype=x.dtype)
            self.units_ = int(self.validation_losses_.argmin())
        return self

    def outputs(self, x: Tensor, units: int | None = None) -> Tensor:
        """The outputs: predictions, probabilities, or sigmoids in (-1/2, 1/2), by kind of output.

        Args:
            x: inputs, of shape (N, D).
            units: how many of the hidden units to use, with the output weights of that moment:
                a replay of the growth. ``units_`` if None.

        Returns:
            Tensor of shape (N, K).

        Raises:
            ValueError: if the network is not fitted, has not so many units or inputs.
        """
        require(hasattr(self, "units_"), "fit must be called first", "no fitted network")
        units = self.units_ if units is None else units
        grown = len(self.input_weights_)
        require(0 <= units <= grown, f"units must be from 0 to {grown}", units)
        v = self.output_weights_[units]
        D = self.output_weights_[0].shape[1] - 1
        require(x.ndim == 2 and x.shape[1] == D, f"x must have shape (N, {D})", tuple(x.shape))
        require(
            x.dtype == v.dtype, f"x must have the dtype of the training data, {v.dtype}", x.dtype
        )
        z = cascade(x, self.input_weights_[:units])
        return self._activate(z @ v.T)

    def predict_proba(self, x: Tensor, units: int | None = None) -> Tensor:
        """Probabilities of the classes, of shape (N, K); arguments as in ``outputs``.

        Those of sigmoid outputs are scaled to sum to 1; trained by squared error, they need not be
        calibrated.

        Raises:
            ValueError: for linear outputs, and as in ``outputs``.
        """
        require(self.output != "linear", "probabilities need sigmoid or softmax", self.output)
        g = self.outputs(x, units)
        if self.output == "softmax":
            return g
        if g.shape[1] == 1:
            return torch.cat([0.5 - g, 0.5 + g], 1)
        return (0.5 + g) / (0.5 + g).sum(1, keepdim=True)

    def predict(self, x: Tensor, units: int | None = None) -> Tensor:
        """Predictions in the form of y; arguments and errors as in ``outputs``."""
        if self.output == "linear":
            g = self.outputs(x, units)
            return g[:, 0] if self._flat else g
        return self.predict_proba(x, units).argmax(1)

    def _targets(self, x: Tensor, y: Tensor, like: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Check data, and bring targets into the form (N, K) of the outputs.

        ``like`` are the inputs and (N, K) targets of the training data, for validation data.
        """
        require_weights("x", x)
        rule = "x must have shape (N, D), N and D >= 1"
        require(x.ndim == 2 and x.numel() > 0, rule, tuple(x.shape))
        same = y.ndim in (1, 2) and len(y) == len(x) and y.numel() > 0
        require(same, f"y must hold {len(x)} targets", f"shape {tuple(y.shape)}")
        if like is not None:
            fit = x.shape[1] == like[0].shape[1] and x.dtype == like[0].dtype
            rule = f"validation x must be (N, {like[0].shape[1]}) of {like[0].dtype}"
            require(fit, rule, f"{tuple(x.shape)} of {x.dtype}")
        if self.output == "linear":
            require_weights("y", y)
            require(y.dtype == x.dtype, f"y must have the dtype of x, {x.dtype}", y.dtype)
            y = y.reshape(len(y), -1)
            fit = like is None or y.shape[1] == like[1].shape[1]
            require(fit, "validation y must have as many outputs as y", y.shape[1])
            return y
        require(y.ndim == 1, "labels must have shape (N,)", tuple(y.shape))
        whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
        require(whole, "labels must be integers", y.dtype)
        lowest, highest = int(y.min()), int(y.max())
        if like is None:
            K = highest + 1
            require(
                lowest >= 0 and K >= 2, "labels must be 0, ..., K - 1, K >= 2", y.unique().tolist()
            )
        else:
            K = max(2, like[1].shape[1])  # two classes of sigmoids have one output
            fit = lowest >= 0 and highest < K
            require(fit, f"validation labels must be 0, ..., {K - 1}", f"{lowest} to {highest}")
        one_hot = torch.nn.functional.one_hot(y.long(), K).to(x.dtype)
        if self.output == "softmax":
            return one_hot
        return one_hot[:, 1:] - 0.5 if K == 2 else one_hot - 0.5

    def _uniform(self, rows: int, z: Tensor) -> Tensor:
        """Draw weights from U[-1, 1], of shape (rows, J)."""
        w = torch.empty(rows, z.shape[1], dtype=z.dtype, device=z.device)
        return w.uniform_(-1, 1, generator=self.generator)

    def _activate(self, s: Tensor) -> Tensor:
        if self.output == "linear":
            return s
        return s.softmax(1) if self.output == "softmax" else symmetric_sigmoid(s)[0]

    def _slope(self, g: Tensor) -> Tensor | float:
        """Derivative of an output, with the offset; 1 where the loss cancels it, as in softmax."""
        return 0.25 - g**2 + self.offset if self.output == "sigmoid" else 1.0

    def _errors(self, s: Tensor, targets: Tensor) -> Tensor:
        """What candidates look at, of shape (N, K)."""
        g = self._activate(s)
        return (g - targets) * (1.0 if self.raw_error else self._slope(g))

    def _loss(self, s: Tensor, targets: Tensor) -> Tensor:
        if self.output == "softmax":
            return torch.nn.functional.cross_entropy(s, targets)
        return 0.5 * ((self._activate(s) - targets) ** 2).sum(1).mean()

    def _reached(self, errors: Tensor) -> bool:
        return self.tolerance is not None and errors.abs().max().item() < self.tolerance

    def _descend(self, w: Tensor, lr: float) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam([w], lr=ADAM_LR)
        return Quickprop([w], lr=lr)

    def _train_outputs(self, v: Tensor, z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One phase: fit the output weights, (K, J), with all hidden units as they are."""
        if self.output == "linear":
            v = (torch.linalg.pinv(z) @ targets).T
            return v, self._loss(z @ v.T, targets)[None]
        v = v.clone()
        optimizer = self._descend(v, OUTPUT_LR)
        losses: list[float] = []
        while len(losses) < self.max_epochs and not _stagnant(losses, OUTPUT_CHANGE, OUTPUT_WAIT):
            s = z @ v.T  # (N, K)
            g = self._activate(s)
            losses.append(self._loss(s, targets).item())
            if self._reached(g - targets):
                break
            v.grad = ((g - targets) * self._slope(g)).T @ z / len(z)
            optimizer.step()
        v.grad = None
        return v, torch.tensor(losses, dtype=z.dtype)

    def _train_candidates(self, z: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
        """One phase: a pool maximizes the criterion; return the best candidate's weights (J,)."""
        total = (errors**2).sum()
        w = self._uniform(self.pool, z)  # (P, J)
        optimizer = self._descend(w, CANDIDATE_LR / z.numel())
        scores: list[Tensor] = []
        best: list[float] = []
        while len(best) < self.max_epochs and not _stagnant(best, CANDIDATE_CHANGE, CANDIDATE_WAIT):
            score, gradient = score_gradient(w, z, errors, self.criterion)
            scores.append(score / total)
            best.append(scores[-1].max().item())
            w.grad = -gradient / total
            optimizer.step()
        scores.append(score_gradient(w, z, errors, self.criterion)[0] / total)
        return w[scores[-1].argmax()].clone(), torch.stack(scores)

    def _stop(self, errors: Tensor, targets: Tensor, losses: list[float]) -> bool:
        """Whether growth ends before the next unit."""
        rounding = 1000 * torch.finfo(targets.dtype).eps * targets.abs().max()
        if self._reached(errors) or errors.abs().max() <= rounding:
            return True
        if self.patience is None or len(losses) <= self.patience:
            return False
        return min(losses[-self.patience :]) > 0.99 * min(losses[: -self.patience])


def _regress(errors: Tensor, a: Tensor) -> Tensor:
    """Output weights (K,) with which activations (N,) of a unit best cancel errors (N, K)."""
    b = a - a.mean()
    return -(b @ errors) / (b @ b).clamp_min(torch.finfo(b.dtype).tiny)


def _stagnant(values: list[float], change: float, wait: int) -> bool:
    """Whether values have changed once, by a fraction, and then not for as long as ``wait``."""
    mark, since = (values or [0.0])[0], None
    for value in values[1:]:
        if abs(value - mark) > change * abs(mark):
            mark, since = value, 0
        elif since is not None:
            since += 1
    return since is not None and since >= wait
