-- The tables of tests/rails/exchange, as its migration leaves them.

CREATE TABLE members (
  id bigserial PRIMARY KEY,
  email character varying NOT NULL,
  created_at timestamp(6) without time zone NOT NULL,
  updated_at timestamp(6) without time zone NOT NULL
);
CREATE UNIQUE INDEX index_members_on_email ON members (email);

CREATE TABLE markets (
  id bigserial PRIMARY KEY,
  symbol character varying NOT NULL,
  base character varying NOT NULL,
  quote character varying NOT NULL,
  tick_size numeric(20, 8) NOT NULL,
  lot_size numeric(20, 8) NOT NULL,
  created_at timestamp(6) without time zone NOT NULL,
  updated_at timestamp(6) without time zone NOT NULL
);
CREATE UNIQUE INDEX index_markets_on_symbol ON markets (symbol);

CREATE TABLE accounts (
  id bigserial PRIMARY KEY,
  member_id bigint NOT NULL REFERENCES members (id),
  currency character varying NOT NULL,
  balance numeric(32, 16) DEFAULT 0 NOT NULL,
  locked numeric(32, 16) DEFAULT 0 NOT NULL,
  lock_version integer DEFAULT 0 NOT NULL,
  created_at timestamp(6) without time zone NOT NULL,
  updated_at timestamp(6) without time zone NOT NULL
);

CREATE TABLE orders (
  id bigserial PRIMARY KEY,
  market_id bigint NOT NULL REFERENCES markets (id),
  member_id bigint NOT NULL REFERENCES members (id),
  side character varying(3) NOT NULL,
  order_type smallint NOT NULL,
  time_in_force smallint NOT NULL,
  price numeric(20, 8),
  quantity numeric(20, 8) NOT NULL,
  remaining numeric(20, 8) NOT NULL,
  state integer NOT NULL,
  source character varying NOT NULL,
  note text,
  lock_version integer DEFAULT 0 NOT NULL,
  created_at timestamp(6) without time zone NOT NULL,
  updated_at timestamp(6) without time zone NOT NULL
);

CREATE TABLE trades (
  id bigserial PRIMARY KEY,
  market_id bigint NOT NULL REFERENCES markets (id),
  maker_order_id bigint NOT NULL REFERENCES orders (id),
  taker_order_id bigint NOT NULL REFERENCES orders (id),
  maker_id bigint NOT NULL REFERENCES members (id),
  taker_id bigint NOT NULL REFERENCES members (id),
  taker_side character varying(3) NOT NULL,
  price numeric(20, 8) NOT NULL,
  quantity numeric(20, 8) NOT NULL,
  total numeric(32, 16) NOT NULL,
  created_at timestamp(6) without time zone NOT NULL,
  updated_at timestamp(6) without time zone NOT NULL
);

CREATE TABLE schema_migrations (version character varying PRIMARY KEY);
