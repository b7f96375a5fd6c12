-- The sandbox exchange's tables, as its Rails migrations would have made them.

CREATE TABLE markets (
  id character varying PRIMARY KEY,
  name character varying NOT NULL,
  tick_size numeric(20, 8) NOT NULL,
  lot_size numeric(20, 8) NOT NULL,
  state integer DEFAULT 0 NOT NULL
);

CREATE TABLE members (
  id bigserial PRIMARY KEY,
  email character varying NOT NULL
);

CREATE UNIQUE INDEX index_members_on_email ON members (email);

CREATE TABLE orders (
  id bigserial PRIMARY KEY,
  market_id character varying NOT NULL,
  member_id bigint NOT NULL,
  side integer NOT NULL,
  order_type integer NOT NULL,
  time_in_force integer DEFAULT 0 NOT NULL,
  price numeric(20, 8),
  quantity numeric(20, 8) NOT NULL,
  remaining_quantity numeric(20, 8) NOT NULL,
  state integer DEFAULT 0 NOT NULL,
  lock_version integer DEFAULT 0 NOT NULL,
  created_at timestamp(6) without time zone NOT NULL,
  updated_at timestamp(6) without time zone NOT NULL
);

CREATE INDEX index_orders_on_book
  ON orders (market_id, side, price, created_at, id) WHERE state = 0;
CREATE INDEX index_orders_on_member_id ON orders (member_id);

CREATE TABLE trades (
  id bigserial PRIMARY KEY,
  market_id character varying NOT NULL,
  maker_order_id bigint NOT NULL,
  taker_order_id bigint NOT NULL,
  price numeric(20, 8) NOT NULL,
  quantity numeric(20, 8) NOT NULL,
  taker_side integer NOT NULL,
  created_at timestamp(6) without time zone NOT NULL,
  updated_at timestamp(6) without time zone NOT NULL
);

CREATE INDEX index_trades_on_taker_order_id ON trades (taker_order_id);
CREATE INDEX index_trades_on_market_id ON trades (market_id, id);

CREATE TABLE schema_migrations (version character varying PRIMARY KEY);
CREATE TABLE ar_internal_metadata (
  key character varying PRIMARY KEY,
  value character varying,
  created_at timestamp(6) without time zone NOT NULL,
  updated_at timestamp(6) without time zone NOT NULL
);

INSERT INTO schema_migrations (version) VALUES ('20150401000000');
INSERT INTO ar_internal_metadata (key, value, created_at, updated_at)
VALUES ('environment', 'production', '2015-04-01', '2015-04-01');
