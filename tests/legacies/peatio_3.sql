-- The tables of an exchange on Peatio 3.x that matter for trading, as its migrations leave them on
-- PostgreSQL. STI types, enum integers, what is left in `volume`.

CREATE TABLE currencies (
    id varchar(10) PRIMARY KEY,
    name varchar,
    type varchar(30) NOT NULL DEFAULT 'coin',
    status varchar(32) NOT NULL DEFAULT 'enabled',
    "precision" smallint NOT NULL DEFAULT 8,
    position integer NOT NULL DEFAULT 1,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);

CREATE TABLE engines (
    id bigserial PRIMARY KEY,
    name varchar NOT NULL,
    driver varchar NOT NULL,
    uid varchar,
    url varchar,
    key_encrypted varchar,
    secret_encrypted varchar,
    data_encrypted varchar,
    state integer NOT NULL DEFAULT 1
);

CREATE TABLE markets (
    id bigserial PRIMARY KEY,
    symbol varchar(20) NOT NULL,
    type varchar NOT NULL DEFAULT 'spot',
    base_unit varchar(10) NOT NULL,
    quote_unit varchar(10) NOT NULL,
    engine_id bigint NOT NULL,
    amount_precision smallint NOT NULL DEFAULT 4,
    price_precision smallint NOT NULL DEFAULT 4,
    min_price numeric(32,16) NOT NULL DEFAULT 0,
    max_price numeric(32,16) NOT NULL DEFAULT 0,
    min_amount numeric(32,16) NOT NULL DEFAULT 0,
    position integer NOT NULL,
    data json,
    state varchar(32) NOT NULL DEFAULT 'enabled',
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);
CREATE UNIQUE INDEX index_markets_on_symbol_and_type ON markets (symbol, type);
CREATE INDEX index_markets_on_engine_id ON markets (engine_id);

CREATE TABLE members (
    id bigserial PRIMARY KEY,
    uid varchar(32) NOT NULL,
    email varchar NOT NULL,
    level integer NOT NULL DEFAULT 0,
    role varchar(16) NOT NULL DEFAULT 'member',
    "group" varchar(32) NOT NULL DEFAULT 'vip-0',
    state varchar(16) NOT NULL DEFAULT 'active',
    username varchar,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);
CREATE UNIQUE INDEX index_members_on_uid ON members (uid);
CREATE UNIQUE INDEX index_members_on_email ON members (email);

CREATE TABLE accounts (
    member_id bigint NOT NULL,
    currency_id varchar(10) NOT NULL,
    type varchar NOT NULL DEFAULT 'spot',
    balance numeric(32,16) NOT NULL DEFAULT 0,
    locked numeric(32,16) NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL,
    PRIMARY KEY (currency_id, member_id)
);
CREATE INDEX index_accounts_on_member_id ON accounts (member_id);

CREATE TABLE orders (
    id bigserial PRIMARY KEY,
    uuid uuid NOT NULL DEFAULT gen_random_uuid(),
    remote_id varchar,
    bid varchar(10) NOT NULL,
    ask varchar(10) NOT NULL,
    market_id varchar(20) NOT NULL,
    market_type varchar NOT NULL DEFAULT 'spot',
    price numeric(32,16),
    volume numeric(32,16) NOT NULL,
    origin_volume numeric(32,16) NOT NULL,
    maker_fee numeric(17,16) NOT NULL DEFAULT 0,
    taker_fee numeric(17,16) NOT NULL DEFAULT 0,
    state integer NOT NULL,
    type varchar(8) NOT NULL,
    member_id bigint NOT NULL,
    ord_type varchar(30) NOT NULL,
    locked numeric(32,16) NOT NULL DEFAULT 0,
    origin_locked numeric(32,16) NOT NULL DEFAULT 0,
    funds_received numeric(32,16) DEFAULT 0,
    trades_count integer NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);
CREATE INDEX index_orders_on_member_id ON orders (member_id);
CREATE INDEX index_orders_on_state ON orders (state);
CREATE INDEX index_orders_on_type_and_market ON orders (type, market_id, market_type);
CREATE INDEX index_orders_on_type_and_member_id ON orders (type, member_id);
CREATE INDEX index_orders_on_type_and_state_and_market
    ON orders (type, state, market_id, market_type);
CREATE INDEX index_orders_on_type_and_state_and_member_id ON orders (type, state, member_id);
CREATE INDEX index_orders_on_updated_at ON orders (updated_at);
CREATE UNIQUE INDEX index_orders_on_uuid ON orders (uuid);

CREATE TABLE trades (
    id bigserial PRIMARY KEY,
    price numeric(32,16) NOT NULL,
    amount numeric(32,16) NOT NULL,
    total numeric(32,16) NOT NULL DEFAULT 0,
    maker_order_id bigint NOT NULL,
    taker_order_id bigint NOT NULL,
    market_id varchar(20) NOT NULL,
    market_type varchar NOT NULL DEFAULT 'spot',
    maker_id bigint NOT NULL,
    taker_id bigint NOT NULL,
    taker_type varchar(20) NOT NULL DEFAULT '',
    created_at timestamp(3) NOT NULL,
    updated_at timestamp(3) NOT NULL
);
CREATE INDEX index_trades_on_created_at ON trades (created_at);
CREATE INDEX index_trades_on_maker_id ON trades (maker_id);
CREATE INDEX index_trades_on_maker_order_id ON trades (maker_order_id);
CREATE INDEX index_trades_on_taker_id ON trades (taker_id);
CREATE INDEX index_trades_on_taker_order_id ON trades (taker_order_id);
CREATE INDEX index_trades_on_taker_type ON trades (taker_type);

CREATE TABLE operations_accounts (
    id serial PRIMARY KEY,
    code integer NOT NULL UNIQUE,
    type varchar(10) NOT NULL,
    kind varchar(30) NOT NULL,
    currency_type varchar(10) NOT NULL,
    description varchar(100),
    scope varchar(10) NOT NULL,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);

CREATE TABLE liabilities (
    id bigserial PRIMARY KEY,
    code integer NOT NULL,
    currency_id varchar NOT NULL,
    member_id bigint NOT NULL,
    reference_type varchar,
    reference_id bigint,
    debit numeric(32,16) NOT NULL DEFAULT 0,
    credit numeric(32,16) NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);
CREATE INDEX index_liabilities_on_currency_id ON liabilities (currency_id);
CREATE INDEX index_liabilities_on_member_id ON liabilities (member_id);
CREATE INDEX index_liabilities_on_reference ON liabilities (reference_type, reference_id);

CREATE TABLE schema_migrations (version varchar PRIMARY KEY);
CREATE TABLE ar_internal_metadata (
    key varchar PRIMARY KEY,
    value varchar,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL
);
