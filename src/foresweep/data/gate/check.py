"""The gate at work: every item through the rules, then the rules that need them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from foresweep.data.gate import actions as act
from foresweep.data.gate import parts, rules
from foresweep.data.gate.adjusted import believed
from foresweep.data.gate.exchanges import calendar_kept, keeps_weekends, sessions_of, union_of
from foresweep.data.gate.exchanges import told as exchange_told
from foresweep.data.gate.jumps import Jump, find_jumps
from foresweep.data.gate.report import Finding, NothingLeft, QualityReport, found, severity_of
from foresweep.data.panel import (
    CLOSE,
    COLUMNS,
    HIGH,
    LOW,
    OPEN,
    VOLUME,
    Array,
    IntArray,
    calendar_groups,
)
from foresweep.data.reading.columns import Fault, RawItem
from foresweep.data.reading.dates import Times

SHOWN = 10
"""Findings of one rule shown for one item; the rest are counted in one more."""
LONELY_SHARE = 0.1
"""A bar is lonely where fewer than this share of the live items (at least five) have one."""


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """One item after its own rules."""

    item: str
    file: str
    times: Times  # [m]
    values: Array  # [m, 5] masked rows are NaN
    lines: IntArray  # [m] for findings of the panel's rules
    daily: bool
    findings: tuple[Finding, ...]
    drafts: tuple[act.Draft, ...] = ()
    amount: Array | None = None  # [m] money that changed hands, in every whole row

    @property
    def dropped(self) -> bool:
        return any(f.severity == "error" for f in self.findings)


def inspect(raw: RawItem, actions: Sequence[act.Action] = ()) -> Inspected:
    """An item through every rule that needs no other item."""
    findings = [f for fault in raw.faults for f in _told(raw, fault)]
    ordered = rules.in_order(raw)
    findings += [f for fault in ordered.faults for f in _told(raw, fault)]
    values = raw.values[ordered.rows]
    drafts: list[act.Draft] = []
    if not ordered.fatal:
        raw, actions, told = believed(raw, ordered.rows, ordered.times, actions)
        findings += [f for fault in told for f in _told(raw, fault)]
        faults = _mask(raw, ordered, values, actions)
        before: rules.Flags = np.asarray(np.isfinite(values).all(axis=1))
        faults += _set_aside(values, ordered, has_volume=raw.has_volume)
        aside = before & ~np.isfinite(values).all(axis=1)
        start, cut = _beginning(ordered, values, ~before)
        faults += cut
        shifted = [Fault(f.rule, f.message, ordered.rows[f.rows], f.said) for f in faults]
        findings += [f for fault in shifted for f in _told(raw, fault)]
        num_aside = int(aside[start:].sum())
        ordered = replace(ordered, rows=ordered.rows[start:], times=ordered.times[start:])
        values = values[start:]
        said, drafts = _item_findings(raw, ordered, values, actions, num_aside)
        findings += said
    lines = raw.line[ordered.rows]
    file = raw.files[0]
    amount, lacking = _amount(raw, ordered, values)
    findings += lacking
    return Inspected(
        raw.item, file, ordered.times, values, lines, ordered.daily, tuple(findings),
        tuple(drafts), amount,
    )  # fmt: skip


def _amount(
    raw: RawItem, ordered: rules.Ordered, values: Array
) -> tuple[Array | None, list[Finding]]:
    """([m] amounts, None where the item has none or some whole row lacks its own; what is said)."""
    if raw.amount is None:
        return None, []
    amount = raw.amount[ordered.rows]
    whole = np.isfinite(values).all(axis=1)
    own = amount[whole]
    if not (own > 0).any():
        return None, []
    lacking = int((~(own >= 0) | ~np.isfinite(own)).sum())
    if not lacking:
        return amount, []
    message = f"{lacking} of {len(own)} amounts are missing"
    return None, [found("patchy_amount", message, file=raw.files[0], item=raw.item)]


def _told(raw: RawItem, fault: Fault) -> list[Finding]:
    """A fault as findings: one a row, at most SHOWN and one that counts the rest."""
    if not len(fault.rows):
        return [found(fault.rule, fault.message, file=raw.files[0], item=raw.item)]
    told = []
    for k, row in enumerate(fault.rows[:SHOWN]):
        message = fault.message.format(fault.said[k] if len(fault.said) else "")
        file = raw.files[raw.file[row]]
        line = int(raw.line[row])
        told.append(found(fault.rule, message, file=file, item=raw.item, row=line))
    more = len(fault.rows) - SHOWN
    if more > 0:
        told.append(found(fault.rule, f"and {more} more rows", file=raw.files[0], item=raw.item))
    return told


def _mask(
    raw: RawItem, ordered: rules.Ordered, values: Array, actions: Sequence[act.Action]
) -> list[Fault]:
    """Mask bad rows of `values` in place and bring them to today's terms; say which and why."""
    known = np.zeros(len(raw.line), dtype=bool)
    for fault in raw.faults:
        known[fault.rows] = True
    bad = known[ordered.rows]
    faults = []
    opens = parts.patchy_opens(values)
    opens = opens[~bad[opens]]
    if rules.too_many(len(opens), len(values)):
        values[:, OPEN] = values[:, CLOSE]
        message = f"{len(opens)} of {len(values)} opens are missing or outside the bar"
        faults.append(Fault("patchy_open", message))
    if ordered.daily:
        faults += _limit_faults(values, ordered)
    broken = rules.broken_rows(values, bad)
    faults += broken
    for fault in broken:
        bad[fault.rows] = True
    if raw.has_volume:
        faults += _volume_faults(values, bad)
    values[bad] = np.nan
    adjusted = None if raw.adjusted is None else raw.adjusted[ordered.rows]
    if adjusted is not None:
        values[:] = act.adjust_by_close(values, adjusted)
        faults += _masked_now(values, bad)
    else:
        values[:] = act.adjust_by_actions(values, ordered.times, actions)
    whole = np.flatnonzero(np.isfinite(values).all(axis=1))
    flips = rules.flips(values[whole])
    if flips:
        rows = whole[[row for row, _ in flips]]
        said = [f"{ratio:.3g} times its neighbours" for _, ratio in flips]
        faults.append(Fault("price_flip", "{}", rows, said))
        values[rows] = np.nan
    return faults


def _limit_faults(values: Array, ordered: rules.Ordered) -> list[Fault]:
    """A mark on the days that closed at a price limit."""
    limit, rows = parts.limit_days(values)
    if not len(rows):
        return []
    still = int((values[rows, HIGH] == values[rows, LOW]).sum())
    first, last = (rules.show_time(ordered.times[k]) for k in (rows[0], rows[-1]))
    said = f"{len(rows)} days closed at the limit of {100 * limit:g} %, {first} to {last}"
    return [Fault("price_limit", "{}", rows[:1], [f"{said}; {still} of them at one price all day"])]


def _beginning(ordered: rules.Ordered, values: Array, bad: rules.Flags) -> tuple[int, list[Fault]]:
    """(row from which on the item is good, what is said of the rows before)."""
    start = parts.good_from(bad)
    why = f"{int(bad[:start].sum())} of the first {start} rows are bad"
    if not start:
        whole = np.flatnonzero(np.isfinite(values).all(axis=1))
        rhythm = parts.rhythm_from(ordered.times[whole])
        if rhythm is None:
            return 0, []
        start = int(whole[rhythm[0]])
        why = f"bars are {rhythm[1]:.3g} days apart at first, then {rhythm[2]:.3g}"
    first = rules.show_time(ordered.times[start])
    left = f"{len(values) - start} of {len(values)} rows are left"
    said = [f"{why}: the item begins on {first}, {left}"]
    return start, [Fault("bad_beginning", "{}", np.array([start]), said)]


def _set_aside(values: Array, ordered: rules.Ordered, *, has_volume: bool) -> list[Fault]:
    """Mask, in place, stretches in which the item did not trade; say from when and how many."""
    faults = []
    for rule, what, rows in (
        ("suspended", "flat bars without volume", _suspended(values, ordered, has_volume)),
        ("stale_stretch", "bars repeat the close before", parts.stale_rows(values)),
    ):
        if len(rows) and len(rows) <= parts.MOST_ASIDE * len(values):
            first = rules.show_time(ordered.times[rows[0]])
            last = rules.show_time(ordered.times[rows[-1]])
            said = [f"{len(rows)} {what}, {first} to {last}"]
            faults.append(Fault(rule, "{}", rows[:1], said))
            values[rows] = np.nan
    return faults


def _suspended(values: Array, ordered: rules.Ordered, has_volume: bool) -> IntArray:
    return parts.suspended(values) if has_volume and ordered.daily else np.empty(0, np.int64)


def _volume_faults(values: Array, bad: rules.Flags) -> list[Fault]:
    """Good rows without a volume, now bad, or, where there are many, volume set aside for the
    whole item."""
    rows = rules.bad_volumes(values[:, VOLUME])
    rows = rows[~bad[rows]]
    if not len(rows):
        return []
    if rules.too_many(len(rows), len(values)):
        values[:, VOLUME] = 0.0
        return [Fault("patchy_volume", f"{len(rows)} of {len(values)} volumes are missing")]
    bad[rows] = True
    said = [f"volume {values[r, VOLUME]:g}" for r in rows]
    return [Fault("missing_volume", "{}", rows, said)]


def _masked_now(values: Array, before: rules.Flags) -> list[Fault]:
    rows = np.flatnonzero(~np.isfinite(values[:, CLOSE]) & ~before)
    return [Fault("missing_adjusted", "no adjusted close", rows)] if len(rows) else []


def _item_findings(
    raw: RawItem,
    ordered: rules.Ordered,
    values: Array,
    actions: Sequence[act.Action],
    num_aside: int,
) -> tuple[list[Finding], list[act.Draft]]:
    """(what the rules say that drop an item or raise a doubt, lines for an actions file)."""
    whole = np.isfinite(values).all(axis=1)
    some = slice(None) if whole.all() else whole  # of a large item no copy is made
    bars, times, rows = values[some], ordered.times[some], ordered.rows[some]
    num_rows = len(values) + ordered.num_left_out
    num_bad = num_rows - len(bars) - num_aside

    def say(rule: str, message: str, at: int | None = None) -> Finding:
        file = raw.files[0] if at is None else raw.files[raw.file[rows[at]]]
        line = None if at is None else int(raw.line[rows[at]])
        return found(rule, message, file=file, item=raw.item, row=line)

    findings = []
    if rules.too_many(num_bad, num_rows):
        share = 100 * num_bad / num_rows
        needed = num_rows - int(rules.MAX_BAD_SHARE * num_rows)
        message = f"{num_bad} of {num_rows} rows ({share:.1f} %): {num_rows - num_bad} are left"
        findings.append(say("too_many_bad_rows", f"{message}, {needed} would be needed"))
    if len(bars) < rules.MIN_ROWS:
        message = f"{len(bars)} whole rows, at least {rules.MIN_ROWS} are needed"
        return [*findings, say("too_short", message)], []
    stale = rules.stale_from(bars[:, CLOSE])
    if stale is not None:
        first, length = stale
        message = f"close {bars[first, CLOSE]:g} stands still for {length} bars"
        message += f" from {rules.show_time(times[first])}: {len(bars) - length} others are left"
        needed = int(np.ceil((1 - parts.MOST_ASIDE) * len(bars)))
        findings.append(say("stale", f"{message}, {needed} would be needed", first))
    change = rules.frequency_change(times)
    if change is not None:
        row, before, after = change
        message = f"bars {before:.3g} days apart, then {after:.3g}: {len(bars) - row} of those,"
        message += f" more than {int(parts.MOST_ASIDE * len(bars))} of one rhythm would be needed"
        findings.append(say("mixed_frequency", message, row))
    signs = rules.synthetic_signs(bars)
    findings += [say("synthetic", sign) for sign in signs]
    told, drafts = _jumps(raw, rows, times, bars, actions)
    findings += [say(rule, message, at) for rule, message, at in told]
    return findings, drafts


def _jumps(
    raw: RawItem, rows: IntArray, times: Times, bars: Array, actions: Sequence[act.Action]
) -> tuple[list[tuple[str, str, int | None]], list[act.Draft]]:
    """((rule, message, row) of jumps that nothing explains and of false actions, the lines of an
    actions file that would explain the jumps)."""
    told: list[tuple[str, str, int | None]] = []
    drafts: list[act.Draft] = []
    if raw.adjusted is None:
        for action in act.contradicted(raw.values[rows, CLOSE], times, actions):
            day = rules.show_time(action.date)
            told.append(
                ("action_contradicted", f"ratio {action.ratio:g} on {day}: no such jump", None)
            )
    explains = raw.adjusted is not None and act.tells_of_splits(raw.values[:, CLOSE], raw.adjusted)
    kept = explains or keeps_weekends(times)
    for jump in act.unexplained(find_jumps(bars, times), times, actions):
        day = rules.show_time(times[jump.row])
        rule = _rule_of(jump, kept)
        if rule is None:
            continue
        like = f", like a {jump.split} split" if jump.split else ""
        message = f"{day}: the price is {jump.move:.3g} times the {_BAR[day == day[:10]]}{like}"
        if rule != "large_jump":
            lines = act.drafts_for(raw.item, day[:10], jump)
            choice = " or ".join(f"{d.line} ({_MEANS[d.kind, d.ratio == 1]})" for d in lines)
            asked = "give adjusted closes or" if severity_of(rule) == "error" else "kept; else"
            message += f"; {asked} say in an actions file: {choice}"
            drafts.append(lines[0])
        told.append((rule, message, jump.row))
    return told, drafts


_BAR = {True: "day before", False: "session before"}
_MEANS = {
    ("split", False): "a split",
    ("split", True): "a real move",
    ("dividend", False): "a spin-off or special dividend",
}


def _rule_of(jump: Jump, kept: bool) -> str | None:
    """The rule that a jump breaks; None for moves and events of prices (adjusted, or of a market
    that never closes) that are `kept` as they are."""
    if jump.kind == "split":
        return "large_jump" if kept else "split_jump"
    if kept:
        return None
    return "event_jump" if jump.kind == "event" else "large_move"


def check(
    raws: Sequence[RawItem],
    *,
    source: str,
    actions: act.Actions | None = None,
    findings: Sequence[Finding] = (),
) -> tuple[pl.DataFrame, QualityReport]:
    """(long frame of what passed, with masked rows as NaN; report) of every item through the gate.

    `findings` are those of files that could not be read. Raises NothingLeft, naming the
    first findings, when nothing usable is left. A list of items is empty afterwards.
    """
    listed = actions or {}
    waiting, inspected = list(raws)[::-1], []
    if isinstance(raws, list):
        raws.clear()  # an item leaves the memory once it is inspected
    while waiting:
        raw = waiting.pop()
        inspected.append(inspect(raw, listed.get(raw.item, ())))
        del raw
    told = [*findings, *(f for i in inspected for f in i.findings)]
    told += _unused_actions(listed, inspected, source)
    kept = [i for i in inspected if not i.dropped]
    strange = _other_rhythm(kept)
    told += strange
    kept = [i for i in kept if i.item not in {f.item for f in strange}]
    drafts = tuple(d for i in inspected for d in i.drafts)
    if not kept:
        raise NothingLeft(QualityReport(source, tuple(told), (), (), 0, 0, drafts))
    kept, lonely = _without_lonely_bars(kept)
    told += lonely
    told += missing_sessions(kept, source)
    told += _survivorship(kept, source)
    with_amount = any(i.amount is not None for i in kept)
    frame = pl.concat([_frame(i, with_amount) for i in kept])
    num_masked = int(frame["close"].is_nan().sum())
    names = tuple(i.item for i in kept)
    unread = [f.item or f.file for f in findings if f.severity == "error"]
    dropped = tuple(sorted({*unread, *(i.item for i in inspected if i.item not in names)}))
    report = QualityReport(source, tuple(told), names, dropped, len(frame), num_masked, drafts)
    return frame, report


def _frame(item: Inspected, with_amount: bool) -> pl.DataFrame:
    columns = {c: item.values[:, k] for k, c in enumerate(COLUMNS)}
    if with_amount:
        nothing = np.full(len(item.times), np.nan)
        columns["amount"] = nothing if item.amount is None else item.amount
    name = pl.Series("item_id", [item.item]).new_from_index(0, len(item.times))
    return pl.DataFrame({"item_id": name, "timestamp": item.times} | columns)


def _unused_actions(
    actions: act.Actions, inspected: Sequence[Inspected], source: str
) -> list[Finding]:
    spans = {i.item: (i.times[0], i.times[-1]) for i in inspected if len(i.times)}
    told = []
    for item, listed in actions.items():
        for action in listed:
            day = rules.show_time(action.date)
            if item not in spans:
                message = f"actions for {item}, which is not in the data"
            elif not spans[item][0] < action.date <= spans[item][1]:
                message = f"action of {item} on {day} lies outside its bars"
            else:
                continue
            told.append(found("unused_action", message, file=source, item=item))
    return told


def _other_rhythm(items: Sequence[Inspected]) -> list[Finding]:
    """Items whose bars have another rhythm than those of most."""
    steps = {i.item: rules.usual_step(i.times) for i in items}
    if len(steps) < 2:
        return []
    usual = float(np.median(list(steps.values())))
    usual = min(steps.values(), key=lambda s: abs(np.log(s / usual)))
    day = rules.DAY.astype(int)
    return [
        found(
            "mixed_frequency",
            f"bars {steps[i.item] / day:.3g} days apart, those of most items {usual / day:.3g}",
            file=i.file,
            item=i.item,
        )
        for i in items
        if not 1 / 1.8 < steps[i.item] / usual < 1.8
    ]


def _without_lonely_bars(
    items: Sequence[Inspected],
) -> tuple[list[Inspected], list[Finding]]:
    """Take out bars at times when next to no other item of the same calendar has one: each would
    be a gap in all the others."""
    kept, told = [], []
    groups = calendar_groups([i.times for i in items])
    shares = {
        group: _presence([i for i, g in zip(items, groups, strict=True) if g == group])
        for group in sorted(set(groups))
    }
    for i, group in zip(items, groups, strict=True):
        timeline, share = shares[group]
        alone = np.flatnonzero(share[np.searchsorted(timeline, i.times)] < LONELY_SHARE)
        for k in alone[:SHOWN]:
            message = f"next to no other item has a bar at {rules.show_time(i.times[k])}"
            told.append(found("lonely_bar", message, file=i.file, item=i.item, row=int(i.lines[k])))
        if len(alone) > SHOWN:
            message = f"and {len(alone) - SHOWN} more rows"
            told.append(found("lonely_bar", message, file=i.file, item=i.item))
        stay = np.setdiff1d(np.arange(len(i.times)), alone)
        kept.append(_rows_of(i, stay) if len(alone) else i)
    return kept, told


def _rows_of(item: Inspected, rows: IntArray) -> Inspected:
    return replace(
        item,
        times=item.times[rows],
        values=item.values[rows],
        lines=item.lines[rows],
        amount=None if item.amount is None else item.amount[rows],
    )


def _presence(items: Sequence[Inspected]) -> tuple[Times, Array]:
    """(timeline, share of the live items that have a bar; 1 where fewer than five live)."""
    timeline = union_of([i.times for i in items])
    live, here = np.zeros(len(timeline) + 1), np.zeros(len(timeline))
    for i in items:
        at = np.searchsorted(timeline, i.times)
        live[at[0]] += 1
        live[at[-1] + 1] -= 1
        here[at] += 1
    num_live = np.cumsum(live)[:-1]
    return timeline, np.where(num_live >= 5, here / np.maximum(num_live, 1), 1.0)


def missing_sessions(items: Sequence[Inspected], source: str) -> list[Finding]:
    """The exchange whose calendar the items of a group keep, and its sessions without bars: one
    finding for those that all daily items of the group miss, one for each item that misses more."""
    groups = calendar_groups([i.times for i in items])
    told = []
    for group in sorted(set(groups)):
        own = [i for i, g in zip(items, groups, strict=True) if g == group]
        times = union_of([i.times for i in own])
        kept = calendar_kept(times)
        if kept is None or not kept.is_exchange:
            continue
        who = own[0].item if len(own) == 1 else f"{len(own)} items"
        message = f"{who}: {exchange_told(kept, times[-1].astype('datetime64[D]'))}"
        told.append(found("calendar", message, file=source, item=None))
        if kept.daily:
            told += _missing(own, times.astype("datetime64[D]"), kept.name, source)
    return told


def _missing(items: Sequence[Inspected], dates: Times, code: str, source: str) -> list[Finding]:
    sessions = sessions_of(code, dates[0], dates[-1])
    told = []
    nobody = sessions[~np.isin(sessions, dates)]
    if len(nobody):
        message = f"no item has {_some(nobody)} of the exchange {code}"
        told.append(found("missing_session", message, file=source, item=None))
    for i in items:
        own = i.times.astype("datetime64[D]")
        lived = sessions[(sessions > own[0]) & (sessions < own[-1])]
        gone = np.setdiff1d(lived[~np.isin(lived, own)], nobody)
        if len(gone):
            message = f"no bar on {_some(gone)} of the exchange {code}"
            told.append(found("missing_session", message, file=i.file, item=i.item))
    return told


def _some(dates: Times) -> str:
    shown = ", ".join(str(d) for d in dates[:3])
    more = f" and {len(dates) - 3} more" if len(dates) > 3 else ""
    return f"{len(dates)} session{'s' if len(dates) > 1 else ''} ({shown}{more})"


def _survivorship(items: Sequence[Inspected], source: str) -> list[Finding]:
    """Does every item live to the panel's end (its last 1 % of times)?"""
    if len(items) < 5:
        return []
    timeline = union_of([i.times for i in items])
    nearly = timeline[-1 - len(timeline) // 100]
    if any(i.times[-1] < nearly for i in items):
        return []
    message = f"all {len(items)} items live to the end: only survivors were chosen"
    return [found("survivorship", message, file=source, item=None)]
