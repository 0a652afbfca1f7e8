"""The best size for a budget that has not been spent, and a back-test of that answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.curves import LOSS_MARGIN
from tlc_jax.statistics.scaling_law import LEVEL, SAME, Law, Runs, fit, interval

MOST_BEYOND = 10.0  # times what was measured, in budget and in parameters
_GRID = 200


@dataclasses.dataclass(frozen=True)
class Option:
    """A size that could be trained.

    Attributes:
      name: its name, such as "2x128".
      params: parameters without embeddings.
      total: all parameters.
      speed: training tokens a second.
    """

    name: str
    params: float
    total: float
    speed: float


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The best size for one budget.

    Attributes:
      seconds: the budget.
      beyond: how many times larger the budget is than the largest one measured at that size.
      refused: why the data cannot support a forecast; empty where they do, and all below is zero
        where they do not.
      option: the best of the sizes.
      tokens: tokens that it sees.
      loss, low, high: its expected loss with its interval, in nats.
      run_low, run_high: interval of the loss of one run.
      best, best_loss: parameters of the best size there could be, embeddings included, and its
        expected loss.
      best_low, best_high: their interval; at the ends of the sizes it goes no further.
      flat_low, flat_high: parameters within 0.01 nats of the best.
      flat: names of the other sizes within 0.01 nats of the best of the sizes.
      edge: "smallest" or "largest" where the best lies at that end of the sizes, and others might
        be better.
    """

    seconds: float
    beyond: float
    refused: str = ""
    option: Option | None = None
    tokens: float = 0.0
    loss: float = 0.0
    low: float = 0.0
    high: float = 0.0
    run_low: float = 0.0
    run_high: float = 0.0
    best: float = 0.0
    best_loss: float = 0.0
    best_low: float = 0.0
    best_high: float = 0.0
    flat_low: float = 0.0
    flat_high: float = 0.0
    flat: tuple[str, ...] = ()
    edge: str = ""


def best_sizes(law: Law, options: Sequence[Option], budgets: Sequence[float]) -> list[Forecast]:
    """Forecasts the best size for each budget in seconds.

    Args:
      law: the fitted law.
      options: the sizes to choose from. Those more than tenfold larger or smaller than the measured
        ones are left out.
      budgets: training seconds.

    Raises:
      InputError: no option is within tenfold of the measured sizes.
    """
    usable = within_reach(law.runs, options)
    return [_forecast(law, usable, seconds) for seconds in budgets]


def within_reach(runs: Runs, options: Sequence[Option]) -> list[Option]:
    """The options at most tenfold larger or smaller than what was measured, the smallest first.

    Raises:
      InputError: there is none.
    """
    low = runs.params_N.min() / MOST_BEYOND / SAME
    high = runs.params_N.max() * MOST_BEYOND * SAME
    usable = sorted((o for o in options if low <= o.params <= high), key=lambda o: o.params)
    if not usable:
        raise InputError("no size to choose from is within tenfold of those that were measured")
    return usable


def _forecast(law: Law, options: Sequence[Option], seconds: float) -> Forecast:
    params_K = np.array([option.params for option in options])
    tokens_K = seconds * np.array([option.speed for option in options])
    losses_K = law.loss(params_K, tokens_K)
    place = int(losses_K.argmin())
    own = slice(place, place + 1)
    beyond = float(law.runs.beyond(params_K[own], tokens_K[own])[0])
    if beyond > MOST_BEYOND * SAME:
        return Forecast(
            seconds,
            beyond,
            f"{beyond:.3g} times the largest budget measured; forecasts reach tenfold",
        )
    draws_B = law.draws(params_K[own], tokens_K[own])[:, 0]
    low, high = interval(draws_B)
    if high - low > (measured := float(np.ptp(law.runs.losses_N))):
        return Forecast(
            seconds,
            beyond,
            f"the {LEVEL:.0%} interval of the loss, {low:.2f} to {high:.2f}, is wider than the "
            f"{measured:.2f} nats between all measured losses: add sizes, budgets or seeds",
        )
    grid_G, tokens_G, total_G = grid_of(options, seconds)
    losses_G = law.loss(grid_G, tokens_G)
    bests_B = total_G[law.draws(grid_G, tokens_G).argmin(1)]
    flat_G = total_G[losses_G <= losses_G.min() + LOSS_MARGIN]
    best_low, best_high = interval(bests_B)
    run_low, run_high = interval(law.draws(params_K[own], tokens_K[own], run=True)[:, 0])
    return Forecast(
        seconds=seconds,
        beyond=beyond,
        option=options[place],
        tokens=float(tokens_K[place]),
        loss=float(losses_K[place]),
        low=low,
        high=high,
        run_low=run_low,
        run_high=run_high,
        best=float(total_G[losses_G.argmin()]),
        best_loss=float(losses_G.min()),
        best_low=best_low,
        best_high=best_high,
        flat_low=float(flat_G[0]),
        flat_high=float(flat_G[-1]),
        flat=tuple(
            option.name
            for option, loss in zip(options, losses_K, strict=True)
            if loss <= losses_K.min() + LOSS_MARGIN and option is not options[place]
        ),
        edge={0: "smallest", _GRID - 1: "largest"}.get(int(losses_G.argmin()), ""),
    )


def grid_of(options: Sequence[Option], seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes between the options, by speeds and embeddings that follow power laws between them.

    Returns:
      Parameters without embeddings, tokens in the budget, and all parameters, each [G].
    """
    logs_K = np.log(sorted((o.params, o.total, o.speed) for o in options))
    grid_G = np.linspace(logs_K[0, 0], logs_K[-1, 0], _GRID)
    total_G, speed_G = (np.exp(np.interp(grid_G, logs_K[:, 0], logs_K[:, c])) for c in (1, 2))
    return np.exp(grid_G), seconds * speed_G, total_G


@dataclasses.dataclass(frozen=True, eq=False)
class BackTest:
    """A forecast from smaller budgets against the larger ones that were run too.

    Attributes:
      refused: why it was not possible; empty where it was, and all below is empty where it was not.
      share: largest budget fitted, as a share of the seconds of the longest run.
      fitted: number of runs that were fitted.
      held_out: the other runs.
      predicted_N: their predicted losses, in nats.
      inside_N: whether the interval of one run holds the loss.
      chosen, best: parameters without embeddings of the size that the forecast chose for the
        largest budget of seconds that several sizes were held out at, and of the best size there.
      lost: mean loss of the chosen size minus that of the best; None without such a budget.
    """

    refused: str
    share: float
    fitted: int = 0
    held_out: Runs | None = None
    predicted_N: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    inside_N: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))
    chosen: float = 0.0
    best: float = 0.0
    lost: float | None = None

    @property
    def errors_N(self) -> np.ndarray:
        """Predicted minus measured losses, in nats."""
        return np.zeros(0) if self.held_out is None else self.predicted_N - self.held_out.losses_N


def back_test(
    runs: Runs, seconds_N: np.ndarray, share: float, rng: np.random.Generator
) -> BackTest:
    """Fits runs of at most a share of the longest one's seconds, and predicts the others.

    Args:
      runs: all runs.
      seconds_N: their training seconds.
      share: the share, at most 0.9, so that the largest budget is held out.
      rng: random numbers of the bootstrap.
    """
    early_N = seconds_N <= share * SAME * seconds_N.max()
    few, rest = runs.take(early_N), runs.take(~early_N)
    try:
        law = fit(few, rng)
        refused = law.degenerate()
    except InputError as error:
        refused = str(error)
    if refused:
        return BackTest(f"from budgets up to {share:.0%} of the largest: {refused}", share)
    predicted_N = law.loss(rest.params_N, rest.tokens_N)
    draws_BxN = law.draws(rest.params_N, rest.tokens_N, run=True)
    inside_N = np.array(
        [
            low <= loss <= high
            for loss, (low, high) in zip(rest.losses_N, map(interval, draws_BxN.T), strict=True)
        ]
    )
    found = BackTest("", share, len(few), rest, predicted_N, inside_N)
    # The choice is judged among sizes that were given equally many seconds.
    late_N = seconds_N[~early_N]
    alike_N = late_N >= late_N.max() / SAME
    sizes = np.unique(rest.params_N[alike_N])
    if len(sizes) < 2:
        return found
    means = [
        [values[alike_N & (rest.params_N == size)].mean() for size in sizes]
        for values in (predicted_N, rest.losses_N)
    ]
    chosen, best = (int(np.argmin(values)) for values in means)
    return dataclasses.replace(
        found,
        chosen=float(sizes[chosen]),
        best=float(sizes[best]),
        lost=float(means[1][chosen] - means[1][best]),
    )
