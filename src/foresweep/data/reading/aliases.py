"""What a column is: the names that vendors and languages give to prices, times and items."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from foresweep.errors import DataError

PRICES = ("open", "high", "low", "close")
REQUIRED = ("timestamp", *PRICES)

# Our name -> tiers of names that it may have: a name of an earlier tier beats all later ones, two
# of one tier contradict each other. Written as people write them; compared without case, accents,
# points, spaces and units.
_WRITTEN: Mapping[str, tuple[str, ...]] = {
    "timestamp": (
        "timestamp timestamps datetime dateandtime date_time date/time gmt_time local_time "
        "open_time opentime window_start candle_date_time_utc bar_time ts mts open_timestamp "
        "start_at start_time starttime ts_event "
        "datetime_utc date_utc trade_datetime candle_time kline_time "
        "trade_time 日期时间 交易时间 时间戳 日時",
        "date dt exchange_date dlycaldt "
        "trade_date trading_date business_date trade_day day dates price_date "
        "datum date fecha data дата tarih dato dátum tanggal ngày päivämäärä ημερομηνία วันที่ "
        "日期 交易日期 日付 日付け 日時 年月日 날짜 일자 일시 交易日",
        "time unix unixtime unix_timestamp epoch epoch_time unixtimestamp t begin start "
        "time_open timeopen time_period_start zeit время 时间 時間",
    ),
    "clock": (
        "time timestamp uhrzeit zeit heure hora ora время godzina czas tijd saat tid 时间 時間 "
        "時刻 시간",
    ),
    "open": (
        "open",
        "open_price opening opening_price openprice price_open px_open openprc dlyopen first "
        "eröffnung eröffnungskurs eröffn erster anfangskurs "
        "öffnung ouverture ouv apertura abertura otwarcie "
        "открытие откр opening açılış öppning öppet öppen öppningskurs åpning åbning åbningskurs "
        "otevření nyitó nyitóár pembukaan mở mở_cửa giá_mở_cửa lần_mở avaus άνοιγμα เปิด ราคาเปิด "
        "开盘 开盘价 開盤 開盤價 今开 始値 시가",
        "o",
    ),
    "high": (
        "high",
        "high_price highest price_high highprice px_high askhi dlyhigh day_high dayhigh "
        "hoch höchst höchstkurs tageshoch höchster plus_haut haut máximo máxima máx massimo "
        "massima alto max maximum max_price najwyższy najwyzszy kurs_max maks максимум макс "
        "максимальная hoog hoogste yüksek en_yüksek högst högsta høy høyest høj højest "
        "maximální tertinggi cao giá_cao_nhất cao_nhất ylin υψηλό สูงสุด ราคาสูงสุด "
        "最高 最高价 最高價 高 高値 고가",
        "h",
    ),
    "low": (
        "low",
        "low_price lowest price_low lowprice px_low bidlo dlylow day_low daylow "
        "tief tiefst tiefstkurs tagestief tiefster plus_bas bas mínimo mínima mín minimo minima "
        "bajo min minimum min_price najniższy najnizszy kurs_min минимум мин минимальная laag "
        "laagste düşük en_düşük lägst lägsta lav lavest minimální terendah thấp giá_thấp_nhất "
        "thấp_nhất alin χαμηλό ต่ำสุด ราคาต่ำสุด 最低 最低价 最低價 低 安値 저가",
        "l",
    ),
    "close": (
        "close",
        "close_price closing closing_price closeprice price_close px_close close/last dlyclose "
        "close_close_price_adjusted_for_splits "
        "schluss schlusskurs schlußkurs schluß endkurs "
        "clôture cloture clot fermeture cierre chiusura "
        "fechamento fecho zamknięcie zamkniecie kurs_zamknięcia закрытие закр slot slotkoers "
        "kapanış stängning stängningskurs stäng slutkurs slutt lukkekurs luk zavření "
        "záró záróár penutupan đóng_cửa giá_đóng_cửa päätös κλείσιμο ปิด ราคาปิด "
        "收盘 收盘价 收盤 收盤價 終値 종가",
        "last last_price ltp last_traded_price px_last price latest settle settlement "
        "settlement_price zuletzt letzter "
        "dernier ultimo último ostatnio цена последняя послед laatste şimdi senast "
        "senaste siste prc dlyprc "
        "terakhir lần_cuối τελευταία 最新价 最新",
        "c",
    ),
    "volume": (
        "volume vol",
        "stück stücke stuecke number_of_shares no_of_shares shares_traded",
        "total_volume trade_volume traded_volume share_volume base_volume volume_traded quantity "
        "total_traded_quantity tottrdqty shares dlyvol "
        "px_volume real_volume volumen umsatz "
        "volumes volumi quantité quantité_échangée wolumen wol объём объем volym omsætning objem "
        "forgalom hacim hac omzet khối_lượng kl vaihto όγκος ปริมาณ 成交量 成交股數 交易量 总手 "
        "出来高 売買高 거래량",
        "v tickvol tick_volume tickvolume",
    ),
    "amount": (
        "amount turnover quote_volume quote_asset_volume value traded_value total_turnover money "
        "dollar_volume 成交额 成交金额 成交金額 売買代金 거래대금",
    ),
    "adjusted": (
        "adjclose adjusted_close closeadj close_adj adjusted adj_close_price "
        "adjusted_closing_price "
        "adj_close_adjusted_close_price_adjusted_for_splits_and_dividend_and/or_capital_gain_"
        "distributions "
        "調整後終値 修正終値 수정종가",
    ),
    "dividends": ("dividends dividend dividend_amount cash_dividend ex_dividend div_cash 股息",),
    "splits": ("stock_splits stock_split splits split_factor split_ratio split_coefficient",),
    "item_id": (
        "item_id",
        "symbol ticker",
        "name item ts_code stock_code security_code code instrument asset pair tic "
        "股票代码 证券代码 代码 股票代碼 證券代號 銘柄コード コード 종목코드",
    ),
}
ZONES: Mapping[str, str] = MappingProxyType(
    {
        "utc": "UTC",
        "gmt": "UTC",
        "z": "UTC",
        "et": "America/New_York",
        "est": "Etc/GMT+5",
        "edt": "Etc/GMT+4",
        "eastern": "America/New_York",
        "pst": "Etc/GMT+8",
        "pdt": "Etc/GMT+7",
        "mst": "Etc/GMT+7",
        "mdt": "Etc/GMT+6",
        "cdt": "Etc/GMT+5",
        "cet": "Etc/GMT-1",
        "cest": "Etc/GMT-2",
        "bst": "Etc/GMT-1",
        "wet": "UTC",
        "eet": "Etc/GMT-2",
        "eest": "Etc/GMT-3",
        "msk": "Europe/Moscow",
        "jst": "Asia/Tokyo",
        "kst": "Asia/Seoul",
        "hkt": "Asia/Hong_Kong",
        "sgt": "Asia/Singapore",
        "aest": "Etc/GMT-10",
        "aedt": "Etc/GMT-11",
    }
)
"""Clocks with one meaning, small -> their zone (IANA's Etc/GMT+5 lies west). CST (Chicago, China)
and IST (India, Israel, Ireland) have several: they are not here."""
UNITS: Mapping[str, float] = MappingProxyType(
    {
        "手": 100.0,
        "lots": 100.0,
        "k": 1e3,
        "000": 1e3,
        "000s": 1e3,
        "000's": 1e3,
        "in000": 1e3,
        "in000s": 1e3,
        "thousand": 1e3,
        "thousands": 1e3,
        "inthousands": 1e3,
        "tsd": 1e3,
        "千": 1e3,
        "千股": 1e3,
        "万": 1e4,
        "萬": 1e4,
        "万股": 1e4,
        "万手": 1e6,
        "m": 1e6,
        "mn": 1e6,
        "mio": 1e6,
        "mln": 1e6,
        "million": 1e6,
        "millions": 1e6,
        "inmillions": 1e6,
        "百万": 1e6,
        "亿": 1e8,
        "億": 1e8,
        "b": 1e9,
        "bn": 1e9,
    }
)
"""Units that a volume's name may carry in brackets -> shares."""
_PLAIN = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "ß": "ss", "æ": "ae"})
_BRACKETS = re.compile(r"[(\[（【<{]([^()\[\]（）【】<>{}]*)[)\]）】>}]")


def bare(name: str) -> str:
    """A name as it is compared: small, without accents, numbering, units, points and spaces."""
    return _bare_and_unit(name)[0]


def _bare_and_unit(name: str) -> tuple[str, str]:
    text = name.strip().casefold()
    text = re.sub(r"^\d+[a-z]?\.\s+", "", text)  # "1. open", as Alpha Vantage counts
    if re.fullmatch(r"<[^<>]*>", text):  # <OPEN>, as MetaTrader and Stooq write
        text = text[1:-1]
    units = "".join(_BRACKETS.findall(text))
    text = _BRACKETS.sub(" ", text)
    return _letters(text), re.sub(r"[\s.]", "", units)


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return "".join(c for c in plain if c.isalnum())


NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        ours: tuple(
            tuple(dict.fromkeys(_letters(n.casefold()) for n in tier.split())) for tier in tiers
        )
        for ours, tiers in _WRITTEN.items()
    }
)
"""`_WRITTEN`, bare."""
_ROLE: Mapping[str, str] = {
    n: ours for ours in reversed([*NAMES]) for tier in NAMES[ours] for n in tier
}
KNOWN = frozenset(n for tiers in NAMES.values() for tier in tiers for n in tier)
_OTHER = re.compile(r"weight|change|chg|avg|average|ma\d|ratio|pct|adj")
IN_ORDER = ("timestamp", "clock", "item_id", "volume", "amount", "dividends", "splits")
"""Of these two columns may be there: the first name of the tier counts."""


@dataclass(frozen=True, slots=True)
class Header:
    """Which column is what: our name -> the column's position."""

    at: Mapping[str, int]
    times: tuple[int, ...] = ()  # every column that may hold the time, the likeliest first
    clock: tuple[int, ...] = ()  # and those that may hold the clock alone
    volumes: tuple[int, ...] = ()  # every column that may be the volume, the likeliest first
    unused: tuple[str, ...] = ()
    zone: str | None = None  # that the time column's name speaks of

    @property
    def missing(self) -> list[str]:
        return [name for name in REQUIRED if name not in self.at]


def understand(names: Sequence[str], chosen: Mapping[str, str] | None = None) -> Header:
    """Which of these columns is what; `chosen` (our name -> a column's name or number from 1)
    overrules.

    Raises DataError where two columns could be one thing (`Close` and `close`, `Last` and
    `Settle`) or a chosen one is not there.
    """
    keys = [bare(n) for n in names]
    forced = {ours: find_column(names, theirs, ours) for ours, theirs in (chosen or {}).items()}
    if "date" in forced:
        forced["timestamp"] = forced.pop("date")
    free = [k for k in range(len(names)) if k not in forced.values()]
    at: dict[str, int] = {}
    ranked: dict[str, list[int]] = {}
    for ours, tiers in NAMES.items():
        hits = [[k for n in tier for k in free if keys[k] == n] for tier in tiers]
        _refuse_twice(ours, [k for tier in hits for k in tier], keys, names, ours in forced)
        ranked[ours] = [k for tier in hits for k in tier]
        best = next((tier for tier in hits if tier), [])
        if len(best) > 1 and ours not in IN_ORDER and ours not in forced:
            raise DataError(
                f"{ours} may be {names[best[0]]!r} or {names[best[1]]!r}: say which "
                f"(--columns {ours}={names[best[0]]})"
            )
        if best:
            at[ours] = best[0]
    if "volume" not in at:
        other = [k for k in free if keys[k].startswith("volume") and not _OTHER.search(keys[k])]
        ranked["volume"] = other
        at |= {"volume": other[0]} if other else {}
    at |= forced
    first_is_index = bool(names) and nameless(names[0]) and 0 in free
    if "timestamp" not in at and first_is_index:
        at["timestamp"] = 0
    if first_is_index:
        ranked["timestamp"].append(0)
    times = [forced["timestamp"]] if "timestamp" in forced else _unique(at, ranked)
    used = {*at.values(), *times, *ranked["clock"]}
    unused = tuple(n for k, n in enumerate(names) if k not in used and keys[k])
    clock = tuple(k for k in ranked["clock"] if k not in forced.values())
    if "clock" in forced or "time" in forced:
        clock = (forced.get("clock", forced.get("time", 0)),)
    at.pop("clock", None)
    return Header(
        at=at,
        times=tuple(times),
        clock=clock,
        volumes=(at["volume"],) if "volume" in forced else tuple(ranked["volume"]),
        unused=unused,
        zone=zone_of(names[at["timestamp"]]) if "timestamp" in at else None,
    )


def _unique(at: Mapping[str, int], ranked: Mapping[str, Sequence[int]]) -> list[int]:
    first = [at["timestamp"]] if "timestamp" in at else []
    return list(dict.fromkeys([*ranked["timestamp"], *first]))


def _refuse_twice(
    ours: str, hits: Iterable[int], keys: Sequence[str], names: Sequence[str], forced: bool
) -> None:
    """Two columns of one name are two answers. Raises DataError."""
    seen: dict[str, int] = {}
    for k in hits:
        if keys[k] in seen and seen[keys[k]] != k and not forced:
            first = names[seen[keys[k]]]
            if ours == "volume" and _BRACKETS.search(first) and _BRACKETS.search(names[k]):
                continue  # Volume (BTC) and Volume (USD) are two things: the first counts
            raise DataError(f"two columns are {keys[k]!r}: {first!r} and {names[k]!r}")
        seen[keys[k]] = k


def nameless(name: str) -> bool:
    """Is it the name of a frame's index, or none?"""
    return bare(name) in ("", "unnamed0", "index")


def role(name: str) -> str:
    """What a column of this name is, "" where it is nothing that we know."""
    return _ROLE.get(bare(name), "")


def flattened(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """(names without tickers, ticker of each column) of AAPL.Open, Close_MSFT, ('Low', 'IBM'), as
    frames of several tickers come out of tools; None where names are not made like that.

    Raises DataError where the two are bid and ask: no rule can say which is the price.
    """
    parts = [_name_and_ticker(n) for n in names]
    found = {name: label for name, label in parts if label and role(name) in PRICES}
    if not set(PRICES) <= {role(name) for name in found}:
        return None
    labels = {label.casefold() for name, label in parts if label and role(name) in PRICES}
    if labels & {"bid", "ask"} and len(labels) > 1:
        raise DataError("prices are bid and ask: say which to use (--columns open=...,high=...)")
    return tuple(n for n, _ in parts), tuple(label for _, label in parts)


def _name_and_ticker(name: str) -> tuple[str, str]:
    if role(name):
        return name, ""
    tokens = [t.strip(" '\"") for t in name.strip(" ()").split(",")]
    if len(tokens) != 2 or not all(tokens):
        tokens = [t for t in re.split(r"[._\-\s:|/]+", name.strip()) if t]
    wanted = (*PRICES, "volume", "adjusted")
    for cut in range(1, len(tokens)):
        head, tail = "_".join(tokens[:cut]), "_".join(tokens[cut:])
        for one, other in ((tail, head), (head, tail)):
            if role(one) in wanted and not role(other):
                return one, other
    return name, ""


def find_column(names: Sequence[str], wanted: str, ours: str) -> int:
    """Position of a column that somebody names, by its name or its number from 1. Raises
    DataError where it is not there."""
    exact = [k for k, n in enumerate(names) if n.strip() == wanted.strip()]
    loose = [k for k, n in enumerate(names) if bare(n) == bare(wanted) and bare(wanted)]
    hits = exact or loose
    if len(hits) > 1:
        raise DataError(f"two columns are {wanted!r}: {ours} may be either")
    if hits:
        return hits[0]
    if wanted.strip().isdigit() and 0 < int(wanted) <= len(names):
        return int(wanted) - 1
    raise DataError(f"no column {wanted!r} for {ours}; it has {', '.join(names[:12])}")


def zone_of(name: str) -> str | None:
    """The zone that a time column's name speaks of: `Time (EST)`, `timestamp_utc`, `Gmt time`."""
    words = re.findall(r"[a-z]+", name.casefold())
    found = {ZONES[w] for w in words if w in ZONES and w != "z"}
    return found.pop() if len(found) == 1 else None


def volume_unit(name: str) -> float:
    """How many shares one of a volume column of this name is: 100 in `成交量(手)`."""
    return UNITS.get(_bare_and_unit(name)[1], 1.0)


def canonical(columns: Sequence[str]) -> dict[str, str]:
    """Our name -> the table's, for every column that we know.

    Raises DataError where two columns are one name (`Close` and `close`).
    """
    return {ours: columns[k] for ours, k in understand(columns).at.items()}
