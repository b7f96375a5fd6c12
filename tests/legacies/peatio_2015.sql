-- The tables of an exchange on Peatio as it was in 2015, on PostgreSQL: integer codes for markets
-- and currencies, buy and sell columns in the trades, state 0 for canceled.

CREATE TABLE members (
    id serial PRIMARY KEY,
    sn varchar,
    display_name varchar,
    email varchar,
    identity_id integer,
    created_at timestamp,
    updated_at timestamp,
    state integer,
    activated boolean,
    country_code integer,
    phone_number varchar,
    disabled boolean DEFAULT false,
    api_disabled boolean DEFAULT false,
    nickname varchar
);

CREATE TABLE accounts (
    id serial PRIMARY KEY,
    member_id integer,
    currency integer,
    balance numeric(32,16),
    locked numeric(32,16),
    created_at timestamp,
    updated_at timestamp,
    "in" numeric(32,16),
    "out" numeric(32,16),
    default_withdraw_fund_source_id integer
);
CREATE INDEX index_accounts_on_member_id ON accounts (member_id);
CREATE INDEX index_accounts_on_member_id_and_currency ON accounts (member_id, currency);

CREATE TABLE account_versions (
    id serial PRIMARY KEY,
    member_id integer,
    account_id integer,
    reason integer,
    balance numeric(32,16),
    locked numeric(32,16),
    fee numeric(32,16),
    amount numeric(32,16),
    modifiable_id integer,
    modifiable_type varchar,
    created_at timestamp,
    updated_at timestamp,
    currency integer,
    fun integer
);
CREATE INDEX index_account_versions_on_account_id ON account_versions (account_id);
CREATE INDEX index_account_versions_on_modifiable
    ON account_versions (modifiable_id, modifiable_type);

CREATE TABLE orders (
    id serial PRIMARY KEY,
    bid integer,
    ask integer,
    currency integer,
    price numeric(32,16),
    volume numeric(32,16),
    origin_volume numeric(32,16),
    state integer,
    done_at timestamp,
    type varchar(8),
    member_id integer,
    created_at timestamp,
    updated_at timestamp,
    sn varchar,
    source varchar NOT NULL,
    ord_type varchar(10),
    locked numeric(32,16),
    origin_locked numeric(32,16),
    funds_received numeric(32,16) DEFAULT 0,
    trades_count integer DEFAULT 0
);
CREATE INDEX index_orders_on_currency_and_state ON orders (currency, state);
CREATE INDEX index_orders_on_member_id ON orders (member_id);
CREATE INDEX index_orders_on_member_id_and_state ON orders (member_id, state);
CREATE INDEX index_orders_on_state ON orders (state);

CREATE TABLE trades (
    id serial PRIMARY KEY,
    price numeric(32,16),
    volume numeric(32,16),
    ask_id integer,
    bid_id integer,
    trend integer,
    currency integer,
    created_at timestamp,
    updated_at timestamp,
    ask_member_id integer,
    bid_member_id integer,
    funds numeric(32,16)
);
CREATE INDEX index_trades_on_ask_id ON trades (ask_id);
CREATE INDEX index_trades_on_ask_member_id ON trades (ask_member_id);
CREATE INDEX index_trades_on_bid_id ON trades (bid_id);
CREATE INDEX index_trades_on_bid_member_id ON trades (bid_member_id);
CREATE INDEX index_trades_on_created_at ON trades (created_at);
CREATE INDEX index_trades_on_currency ON trades (currency);

CREATE TABLE deposits (
    id serial PRIMARY KEY,
    account_id integer,
    member_id integer,
    currency integer,
    amount numeric(32,16),
    fee numeric(32,16),
    txid varchar,
    state integer,
    aasm_state varchar,
    created_at timestamp,
    updated_at timestamp,
    done_at timestamp
);

CREATE TABLE schema_migrations (version varchar PRIMARY KEY);
