"""Every number of a verdict, computed again from what is on disk: numpy and scipy, no foresweep.

Written straight from the definitions, with loops where the package is vectorised. What is shared is
the plan of the bootstrap's draws (circular blocks, numpy's generator, seed 0), else two bootstraps
could not agree to the last digit.
"""

from __future__ import annotations

import json
import math
import sqlite3
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import integrate, special, stats

METRIC = "pct_mae"


def recompute(database: Path, candidate: str) -> dict[str, Any]:
    """The numbers of `verdict --json` for a promoted run of a database with one sweep."""
    runs, sweep = _read(database)
    horizon, plan = sweep["horizon"], json.loads(sweep["plan"])["parts"]
    stride = plan["val"]["stride"]
    trained = [r for r in runs if not r["is_baseline"]]
    complete = [r for r in trained if r["state"] == "complete"]
    ids = [r["run_id"] for r in complete]
    baselines = {r["model_name"]: r["run_id"] for r in runs if r["is_baseline"]}
    tune = {r["run_id"]: json.loads(r["metrics"]).get("tune_pct_mae") for r in runs}
    benchmark = min(baselines, key=lambda n: tune[baselines[n]])
    folder = {r["run_id"]: Path(r["forecasts_path"]) for r in runs if r["forecasts_path"]}
    val = {i: np.load(folder[i] / "val" / "losses.npz") for i in (*ids, *baselines.values())}
    test = {i: np.load(folder[i] / "test" / "losses.npz") for i in (candidate, *baselines.values())}
    effective = {
        p: min(plan[p]["origins"], (plan[p]["bars"] - horizon) / horizon + 1)
        for p in ("val", "test")
    }
    block = math.ceil(horizon / stride)
    against, found = [], {}
    for opponent in (benchmark, "last-value"):
        other = baselines[opponent]
        d = np.column_stack([scaled(val[other]) - scaled(val[i]) for i in ids])
        one = stepm(d, block, 0.05)
        mean = scaled(val[other]).mean()
        k = ids.index(candidate)
        uppers = (one["mean"] + one["upper_c"] * one["se"]) / mean
        left, again = without_best_item(val, ids, candidate, other, block)
        ours, theirs = scaled(test[candidate]), scaled(test[other])
        t, p = dm(theirs - ours, block - 1)
        against.append(
            {
                "raw_skill": 1 - raw(val[candidate]) / raw(val[other]),
                "scaled_skill": one["mean"][k] / mean,
                "lower_skill": (one["mean"][k] - one["lower_c"][k] * one["se"][k]) / mean,
                "upper_skill": uppers[k],
                "t": one["t"][k],
                "pvalue": one["p"][k],
                "superior": [i for i, x in zip(ids, one["p"], strict=True) if x < 0.05],
                "max_upper_skill": uppers.max(),
                "max_upper_trial": ids[int(uppers.argmax())],
                "df": one["df"][k],
                "inflation": one["inflation"][k],
                "without_item": left,
                "pvalue_without": again["p"][k] if again else None,
                "test_raw_skill": 1 - raw(test[candidate]) / raw(test[other]),
                "test_scaled_skill": (theirs - ours).mean() / theirs.mean(),
                "test_t": t,
                "test_pvalue": p,
                **dict.fromkeys(("test_lower_skill", "test_upper_skill", "test_origins")),
                # asked only of a file that brings its own scale
                **dict.fromkeys(("pvalue_rescaled", "test_pvalue_rescaled")),
                "opponent": opponent,
            }
        )
        if opponent == benchmark:
            found = {"d": d, "one": one, "mean": mean, "k": k}
    d, one, mean, k = found["d"], found["one"], found["mean"], found["k"]
    lost, pbo, blocks = cscv(d, horizon, stride)
    num = len(trained)
    num_effective = independent(d, num)
    raws = {i: raw(val[i]) for i in ids}
    best = min(ids, key=lambda i: raws[i])
    return {
        "benchmark": benchmark,
        "against": against,
        "horizon": horizon,
        "stride": stride,
        "level": 0.05,
        "test_level": 0.05,
        "judged_number": 1,
        "look_number": 1,
        "growing": False,
        "num_horizons": 1,
        "num_tested": len(ids),
        "num_trials": num,
        "num_effective_trials": num_effective,
        "num_items": val[candidate]["scale"].shape[1],
        "num_origins": {p: plan[p]["origins"] for p in ("val", "test")},
        "effective_origins": effective,
        "num_draws": 2000,
        "num_blocks": blocks,
        "probability_of_loss": lost,
        "pbo": pbo,
        "detectable_skill": detectable(one["critical"][k], one["se"][k], one["df"][k]) / mean,
        "expected_best_skill": luck(one["se"], num_effective) / mean,
        "debiased_skill": debiased(d, block) / mean,
        "best": best,
        "one_se_choice": cheapest(complete, val, best, block - 1),
        "overtuning": overtuning([tune[i] for i in ids], [raws[i] for i in ids]),
        "members": [i for i in ids if all(i in a["superior"] for a in against)],
        "sharpe": deflated(folder[candidate] / "val" / "returns.npz", complete, num),
    }


def checks(found: dict[str, Any], test_from: str) -> list[tuple[int, Any, Any, bool]]:
    """(gate, value, threshold, passed) of every check, from the numbers above."""
    rows: list[tuple[int, Any, str, Any]] = [
        (0, found["effective_origins"]["val"], ">=", 20.0),
        (0, found["effective_origins"]["test"], ">=", 20.0),
        (0, float(found["num_blocks"]), ">=", 6),
    ]
    for a in found["against"]:
        rows += [(1, a["pvalue"], "<", found["level"]), (1, a["raw_skill"], ">", 0.0)]
        if a["without_item"] is not None:
            rows.append((1, a["pvalue_without"], "<", 2 * found["level"]))
    rows.append((2, found["probability_of_loss"], "<", 0.2))
    rows.append((3, "from scratch", "before", test_from))
    for a in found["against"]:
        rows.append((4, a["test_raw_skill"], ">", 0.0))
        rows.append((4, a["test_pvalue"], "<", found["test_level"]))
    holds = {"<": lambda v, t: v < t, ">": lambda v, t: v > t, ">=": lambda v, t: v >= t}
    return [(g, v, t, r == "before" or holds[r](v, t)) for g, v, r, t in rows]


def _read(database: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    raw_connection = sqlite3.connect(database)
    raw_connection.row_factory = sqlite3.Row
    try:
        runs = raw_connection.execute("SELECT * FROM runs ORDER BY created_at, run_id").fetchall()
        (sweep,) = raw_connection.execute("SELECT * FROM sweeps").fetchall()
    finally:
        raw_connection.close()
    return [dict(r) for r in runs], dict(sweep)


def raw(panel: Any) -> float:
    """Mean loss of all cells."""
    return float(panel[f"loss/{METRIC}"].mean())


def scaled(panel: Any) -> np.ndarray:
    """[O] mean over items of loss / volatility."""
    cells = panel[f"loss/{METRIC}"] / panel["scale"]
    return np.array([row.sum() / len(row) for row in cells])


def dm_error(d: np.ndarray, lags: int) -> float:
    """Harvey, Leybourne and Newbold's standard error of the mean; Bartlett where needed. Without
    what goes on beyond shared labels."""
    n = len(d)
    e = d - d.mean()
    gamma = [sum(e[t] * e[t - k] for t in range(k, n)) / n for k in range(lags + 1)]
    variance = gamma[0] + 2 * sum(gamma[1:])
    if variance <= 0:
        variance = gamma[0] + 2 * sum((1 - k / (lags + 1)) * gamma[k] for k in range(1, lags + 1))
    h = lags + 1
    correction = (n + 1 - 2 * h + h * (h - 1) / n) / n
    return math.sqrt(variance / n / correction)


def dm(d: np.ndarray, lags: int) -> tuple[float, float]:
    """(t, one-sided p)."""
    more = inflation(d[:, None], lags)[0]
    t = d.mean() / (dm_error(d, lags) * math.sqrt(more))
    return t, float(stats.t.sf(t, max(1.0, (len(d) / (2 * lags + 1) - 1) / more)))


def anytime(d: np.ndarray, lags: int, level: float) -> float:
    """p of a growing test after all of d, from Robbins' one-sided mixture as an integral: e is the
    mean of exp(l s - l^2 n / 2) over l half-normal with precision rho."""
    twice = 2 * math.log(1 / (2 * level))
    rho = 120 / (twice + math.log(1 + twice))
    most = 1.0
    for n in range(20 * (lags + 1), len(d) + 1):
        x = d[:n]
        more = inflation(x[:, None], lags)[0]
        t = x.mean() / (dm_error(x, lags) * math.sqrt(more))
        s = stats.norm.isf(stats.t.sf(t, max(1.0, (n / (2 * lags + 1) - 1) / more))) * math.sqrt(n)

        def weighed(bet: float, s: float = s, n: int = n) -> float:
            half_normal = 2 * math.sqrt(rho / (2 * math.pi)) * math.exp(-rho * bet**2 / 2)
            return math.exp(bet * s - bet**2 * n / 2) * half_normal

        peak = max(s / (n + rho), 0.0)
        wide = 10 / math.sqrt(n + rho)
        most = max(most, integrate.quad(weighed, 0, peak + wide, points=[peak], limit=200)[0])
    return 1 / most


def inflation(d: np.ndarray, lags: int) -> list[float]:
    """Of each column's variance of the mean, by autocorrelation at multiples of lags + 1."""
    n, step = len(d), lags + 1
    if n - step < 8:
        return [1.0] * d.shape[1]
    table, chance = [], []
    for x in d.T:
        e = x - x.mean()

        def rho(lag: int, e: np.ndarray = e) -> float:
            return sum(e[t] * e[t - lag] for t in range(lag, n)) / sum(e * e)

        spaced = [k * step for k in (1, 2, 3, 4) if n - k * step >= 8]
        table.append([(n * rho(k) + 1) / (n - 3) for k in spaced])
        chance.append(math.sqrt((1 + 2 * sum(rho(k) ** 2 for k in range(1, step))) / n))
    middle = float(np.median([r[0] for r in table]))
    common = max(middle, 0.0) * min(max(middle / float(np.median(chance)), 0.0), 1.0)
    out = []
    for r, sd in zip(table, chance, strict=True):
        beyond = max(r[0] - common, 0.0)
        first = min(common + beyond * min(beyond / (2.5 * sd), 1.0) ** 2, 0.95)
        top = sum(a * b for a, b in pairwise(r))
        ratio = min(top / max(sum(a * a for a in r[:-1]), 1e-12), 0.95)
        weight = min(max((first / sd - 1) / 2, 0.0), 1.0)
        out.append(1 + 2 * first / (1 - first - weight * max(ratio - first, 0.0)))
    return out


def without_best_item(
    val: dict[str, Any], ids: list[str], candidate: str, other: str, block: int
) -> tuple[str | None, dict[str, Any] | None]:
    """The item that the candidate gains most on, and StepM on the others."""
    items = [str(i) for i in val[other]["items"]]
    if len(items) < 5:
        return None, None

    def cells(name: str) -> np.ndarray:
        return val[name][f"loss/{METRIC}"] / val[name]["scale"]

    gain = (cells(other) - cells(candidate)).sum(axis=0)
    rest = [k for k in range(len(items)) if k != int(gain.argmax())]
    theirs = cells(other)[:, rest].mean(axis=1)
    d = np.column_stack([theirs - cells(i)[:, rest].mean(axis=1) for i in ids])
    return items[int(gain.argmax())], stepm(d, block, 0.05)


def draws(n: int, block: int, reps: int) -> np.ndarray:
    """[reps, n] positions of a circular block bootstrap."""
    starts = np.random.default_rng(0).integers(n, size=(reps, math.ceil(n / block)))
    return np.array([[(s + j) % n for s in row for j in range(block)][:n] for row in starts])


def stepm(d: np.ndarray, block: int, level: float) -> dict[str, Any]:
    """Studentised StepM with step-down p-values, and simultaneous critical values."""
    n, num = d.shape
    mean = d.mean(axis=0)
    more = np.array(inflation(d, block - 1))
    se = np.array([dm_error(d[:, k], block - 1) for k in range(num)]) * np.sqrt(more)
    t, df = mean / se, np.maximum((n / (2 * block - 1) - 1) / more, 1.0)
    resampled = np.array([d[rows].mean(axis=0) for rows in draws(n, block, 2000)])
    deviation = resampled - mean
    deviation /= deviation.std(axis=0)

    def to_t(c: float) -> np.ndarray:
        return np.array([stats.t.isf(stats.norm.sf(c), one) for one in df])

    z = stats.norm.isf(stats.t.sf(t, df))
    # trials far behind the benchmark are rivals from where they stand (Hansen 2005)
    least = math.sqrt(2 * math.log(math.log(n / block)))
    behind = np.clip(-t / least - 1, 0.0, 1.0) * np.minimum(z, 0.0)
    order = np.argsort(-z, kind="stable")
    p, highest = np.ones(num), 0.0
    for place, k in enumerate(order):
        rivals = (deviation + behind)[:, order[place:]].max(axis=1)
        highest = max(highest, (1 + int((rivals >= z[k]).sum())) / 2001)
        p[k] = highest
    top, bottom = deviation.max(axis=1), -deviation.min(axis=1)
    critical = to_t(float(np.quantile((deviation + behind).max(axis=1), 1 - level)))
    return {
        "mean": mean,
        "se": se,
        "t": t,
        "p": p,
        "df": df,
        "inflation": more,
        "critical": critical,
        "lower_c": to_t(float(np.quantile(top, 1 - level))),
        "upper_c": to_t(float(np.quantile(bottom, 1 - level))),
    }


def cscv(d: np.ndarray, horizon: int, stride: int) -> tuple[float, float, int]:
    """(probability of loss, PBO, blocks)."""
    least = max(2, math.ceil(horizon / stride))
    blocks = max(s for s in range(0, 17, 2) if s == 0 or len(d) // s >= least)
    parts = np.array_split(np.arange(len(d)), blocks)
    lost = low = count = 0
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[b] for b in chosen])
        outside = np.concatenate([parts[b] for b in range(blocks) if b not in chosen])
        pick = int(d[inside].mean(axis=0).argmax())
        there = d[outside].mean(axis=0)
        rank = (there < there[pick]).sum() + ((there == there[pick]).sum() + 1) / 2
        lost += there[pick] < 0
        low += rank / (d.shape[1] + 1) <= 0.5
        count += 1
    return lost / count, low / count, blocks


def independent(d: np.ndarray, num: int) -> float:
    pairs = [np.corrcoef(d[:, a], d[:, b])[0, 1] for a, b in combinations(range(d.shape[1]), 2)]
    share = min(max(float(np.mean(pairs)), 0.0), 1.0)
    return share + (1 - share) * num


def luck(se: np.ndarray, num: float) -> float:
    if num <= 1:
        return 0.0
    gamma = 0.5772156649015329
    top = (1 - gamma) * stats.norm.ppf(1 - 1 / num) + gamma * stats.norm.ppf(1 - 1 / (num * math.e))
    return float(np.median(se) * max(0.0, top))


def detectable(critical: float, se: float, df: float) -> float:
    """Mean whose noncentral t passes the critical value in 80 %."""
    return float(special.nctdtrinc(df, 0.2, critical)) * se


def deflated(file: Path, runs: list[dict[str, Any]], num: int) -> dict[str, Any]:
    """Bailey and Lopez de Prado's chance above 0 and above what luck alone would show."""
    stored = np.load(file)
    if not stored["trades"]:
        why = "undefined: the rule never trades on its forecasts"
        numbers = ("num_bars", "annual", "probabilistic", "luck", "deflated")
        return {"num_trials": num, "why_not": why} | dict.fromkeys(numbers)
    x, year = stored["excess"], math.sqrt(float(stored["bars_per_year"]))
    ratio = x.mean() / math.sqrt(((x - x.mean()) ** 2).sum() / (len(x) - 1))
    skew, kurtosis = stats.skew(x), stats.kurtosis(x, fisher=False)
    error = math.sqrt((1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2) / (len(x) - 1))
    shown = [json.loads(r["metrics"]).get("val_sharpe") for r in runs]
    shown = [s / year for s in shown if s is not None and not math.isnan(s)]
    spread = np.std(shown, ddof=1)
    gamma = 0.5772156649015329
    top = (1 - gamma) * stats.norm.ppf(1 - 1 / num) + gamma * stats.norm.ppf(1 - 1 / (num * math.e))
    return {
        "num_trials": num,
        "num_bars": len(x),
        "annual": ratio * year,
        "probabilistic": float(stats.norm.cdf(ratio / error)),
        "luck": spread * top * year,
        "deflated": float(stats.norm.cdf((ratio - spread * top) / error)),
        "why_not": None,
    }


def debiased(d: np.ndarray, block: int) -> float:
    mean = d.mean(axis=0)
    optimism = []
    for rows in draws(len(d), block, 2000):
        again = d[rows].mean(axis=0)
        optimism.append(again.max() - mean[again.argmax()])
    return float(mean.max() - np.mean(optimism))


def cheapest(runs: list[dict[str, Any]], val: dict[str, Any], best: str, lags: int) -> str:
    by_origin = {r["run_id"]: val[r["run_id"]][f"loss/{METRIC}"].mean(axis=1) for r in runs}
    near = [best]
    for name, losses in by_origin.items():
        gap = losses - by_origin[best]
        if name != best and gap.mean() <= dm_error(gap, lags):
            near.append(name)
    seconds = {r["run_id"]: r["training_time_seconds"] for r in runs}
    return min(near, key=lambda n: seconds[n])


def overtuning(inner: list[float], outer: list[float]) -> float:
    incumbents, best = [], math.inf
    for a, b in zip(inner, outer, strict=True):
        if a < best:
            best = a
            incumbents.append(b)
    return incumbents[-1] - min(incumbents)
