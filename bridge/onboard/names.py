"""Names that monoliths give to what we look for. Pure: names in, ranks out.

A name alone makes nothing certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BREAK = re.compile(r"[\W_]+")


def words(name: str) -> tuple[str, ...]:
    """
    >>> words("OrderBids"), words("REMAINING_QUANTITIES"), words("is_buy")
    (('order', 'bid'), ('remaining', 'quantity'), ('is', 'buy'))
    """
    pieces = _BREAK.split(_CAMEL.sub("_", name))
    return tuple(_singular(piece.lower()) for piece in pieces if piece)


def _singular(word: str) -> str:
    if word == "ids":
        return "id"
    for ending, instead in (("ies", "y"), ("ches", "ch")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + instead
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def rank(name: str, known: Iterable[str]) -> int | None:
    """The place of the name among the known ones; None when it is none of them."""
    own = words(name)
    for place, one in enumerate(known):
        if words(one) == own:
            return place
    return None


# Tables. A word of the second kind says that it is about orders, but holds none.
ORDERS = frozenset(
    (
        *("order", "auftrag", "auftraege", "aufträge", "orden", "ordene", "órdene", "ordre"),
        *("ordem", "orden", "zayavka", "zayavki", "zajavka", "ордер", "заявка", "заявки"),
        *("注文", "订单", "委托"),
    )
)
FILLS = frozenset(
    (
        *("trade", "fill", "execution", "match", "deal", "ausführung", "ausfuehrung"),
        *("ausfuehrungen", "ausführungen", "abschluss", "abschlüsse", "geschaeft", "geschaefte"),
        *("operacion", "operacione", "ejecucion", "ejecucione", "execucao", "execucoe"),
        *("transaction", "sdelka", "sdelki", "сделка", "сделки", "約定", "成交"),
    )
)
INSTRUMENTS = frozenset(
    (
        *("market", "instrument", "pair", "symbol", "product", "ticker", "security"),
        *("markt", "maerkte", "märkte", "mercado", "marche", "marché", "instrumento", "paar"),
    )
)
ACCOUNTS = frozenset(
    ("account", "wallet", "balance", "konto", "konten", "cuenta", "compte", "conta", "saldo")
)
ABOUT = frozenset(
    (
        *("item", "line", "history", "archive", "archived", "log", "event", "version", "audit"),
        *("detail", "type", "status", "state", "book", "snapshot", "fee", "old", "backup", "tmp"),
        *("setting", "config", "preference", "note", "comment", "error", "summary", "stat", "tag"),
    )
)

# Columns, the best name first.
SYMBOL = (
    *("symbol", "market_id", "market", "instrument_id", "instrument", "trading_pair_id"),
    *("trading_pair", "currency_pair_id", "currency_pair", "pair_id", "pair", "ticker"),
    *("product_id", "product", "security_id", "security", "symbol_id", "market_symbol"),
    *("markt_id", "markt", "paar", "mercado_id", "mercado", "instrumento", "marche_id"),
    *("par", "currency"),
)
ACCOUNT = (
    *("member_id", "user_id", "account_id", "customer_id", "client_id", "trader_id", "owner_id"),
    *("participant_id", "user_uid", "member_uid", "konto_id", "kunde_id", "kunden_id"),
    *("cuenta_id", "usuario_id", "cliente_id", "compte_id", "conta_id"),
)
SIDE = (
    *("side", "order_side", "direction", "is_buy", "buy", "is_bid", "is_sell", "is_ask"),
    *("buy_sell", "seite", "richtung", "lado", "sens", "cote", "type", "kind", "position"),
)
ORD_TYPE = (
    *("ord_type", "order_type", "price_type", "kind", "type", "order_kind"),
    *("auftragsart", "art", "typ", "tipo", "tipo_orden"),
)
TIF = ("time_in_force", "tif", "validity", "gueltigkeit", "duration", "order_duration")
STATUS = (
    *("status", "state", "order_status", "order_state", "aasm_state"),
    *("zustand", "estado", "etat", "statut", "situacao"),
)
PRICE = (
    *("price", "limit_price", "order_price", "price_cents", "rate", "px"),
    *("preis", "precio", "prix", "preco", "limit"),
)
CREATED = (
    *("created_at", "placed_at", "inserted_at", "executed_at", "traded_at", "matched_at"),
    *("create_time", "created", "created_on", "ctime", "timestamp", "time", "date_created"),
    *("erstellt_am", "erstellt", "creado_en", "creado", "cree_le", "criado_em"),
)
UPDATED = (
    *("updated_at", "modified_at", "update_time", "updated", "updated_on", "mtime"),
    *("last_modified", "geaendert_am", "geändert_am", "actualizado_en", "atualizado_em"),
)
LOCK_VERSION = ("lock_version", "version", "row_version")
TAKER_SIDE = ("taker_side", "taker_type", "aggressor_side", "side", "trend", "direction", "type")
TOTAL = ("total", "funds", "notional", "quote_amount", "quote_volume", "value", "cost", "turnover")
NAME = ("symbol", "code", "ticker", "name", "slug", "market_id", "kuerzel", "codigo")

# Quantities: one word says that it is one, another which.
QUANTITY = frozenset(
    (
        *("quantity", "qty", "amount", "volume", "size", "unit", "share", "lot"),
        *("menge", "anzahl", "stueck", "cantidad", "quantite", "quantité", "quantidade"),
    )
)
ORIGINAL = frozenset(
    (*("origin", "orig", "original", "initial", "ordered", "requested", "order", "full"),)
)
LEAVES = frozenset(
    (
        *("remaining", "remain", "leave", "left", "open", "unfilled", "outstanding", "rest"),
        *("restmenge", "restant", "restante", "offen"),
    )
)
FILLED = frozenset(
    (
        *("filled", "executed", "exec", "matched", "done", "cum", "cumulative", "traded", "deal"),
        *("ausgefuehrt", "ausgeführt", "ejecutada", "executada"),
    )
)
LEAVES_ALONE = ("left", "leaves", "remaining", "unfilled", "restmenge", "rest")
FILLED_ALONE = ("filled", "executed", "ausgefuehrt")
OTHER_MONEY = frozenset(
    (
        *("price", "fee", "locked", "fund", "balance", "avg", "average", "min", "max", "stop"),
        *("trigger", "cost", "value", "visible", "display", "iceberg", "quote", "total", "in"),
    )
)

# Whose orders met.
MAKER = frozenset(("maker", "resting", "passive"))
TAKER = frozenset(("taker", "aggressor", "aggressive", "incoming"))
BUYER = frozenset(("buy", "buyer", "bid", "buying", "kauf", "compra", "achat"))
SELLER = frozenset(("sell", "seller", "ask", "selling", "offer", "verkauf", "venta", "vente"))
PERSON = frozenset(
    (
        *("member", "user", "account", "customer", "client", "trader", "owner", "participant"),
        *("konto", "kunde", "cuenta", "usuario", "cliente", "compte", "conta"),
    )
)

# Columns of orders that are more than limit and market.
CONDITIONAL = frozenset(("stop", "trigger", "trailing", "iceberg", "visible", "display", "peg"))

# Columns that set some rows apart from plain orders.
APART = frozenset(
    (
        *("type", "kind", "category", "class", "test", "simulated", "demo", "margin", "deleted"),
        *("hidden", "virtual"),
    )
)

# Of instruments: decimals of a price or a quantity, and their smallest steps.
PRICE_DECIMALS = ("price_precision", "price_decimals", "price_scale", "bid_precision")
QUANTITY_DECIMALS = (
    *("amount_precision", "quantity_precision", "volume_precision", "size_precision"),
    *("amount_decimals", "quantity_decimals", "quantity_scale", "ask_precision"),
)
TICK = (
    *("tick_size", "tick", "price_tick", "price_increment", "price_step", "min_price_increment"),
    *("quote_increment",),
)
LOT = (
    *("lot_size", "lot", "step_size", "quantity_increment", "quantity_step", "amount_step"),
    *("base_increment", "amount_increment"),
)
BALANCE = frozenset(("balance", "available", "amount", "saldo", "solde"))
LOCKED = frozenset(("locked", "reserved", "hold", "held", "frozen", "blocked", "gesperrt"))
