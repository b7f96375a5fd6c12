class CreateExchange < ActiveRecord::Migration[6.1]
  def change
    create_table :members do |t|
      t.string :email, null: false, index: { unique: true }
      t.timestamps
    end

    create_table :markets do |t|
      t.string :symbol, null: false, index: { unique: true }
      t.string :base, null: false
      t.string :quote, null: false
      t.decimal :tick_size, precision: 20, scale: 8, null: false
      t.decimal :lot_size, precision: 20, scale: 8, null: false
      t.timestamps
    end

    create_table :accounts do |t|
      t.references :member, null: false, foreign_key: true, index: false
      t.string :currency, null: false
      t.decimal :balance, precision: 32, scale: 16, null: false, default: 0
      t.decimal :locked, precision: 32, scale: 16, null: false, default: 0
      t.integer :lock_version, null: false, default: 0
      t.timestamps
      t.index %i[member_id currency], unique: true
    end

    create_orders
    create_trades
  end

  private

  def create_orders
    create_table :orders do |t|
      t.references :market, null: false, foreign_key: true, index: false
      t.references :member, null: false, foreign_key: true
      t.string :side, null: false, limit: 3
      t.integer :order_type, null: false, limit: 2
      t.integer :time_in_force, null: false, limit: 2
      t.decimal :price, precision: 20, scale: 8
      t.decimal :quantity, precision: 20, scale: 8, null: false
      t.decimal :remaining, precision: 20, scale: 8, null: false
      t.integer :state, null: false
      t.string :source, null: false
      t.text :note
      t.integer :lock_version, null: false, default: 0
      t.timestamps
      t.index %i[market_id side price created_at id],
        name: :index_orders_on_book, where: "state = 100"
    end
  end

  def create_trades
    create_table :trades do |t|
      t.references :market, null: false, foreign_key: true, index: false
      t.references :maker_order, null: false, foreign_key: { to_table: :orders }
      t.references :taker_order, null: false, foreign_key: { to_table: :orders }
      t.references :maker, null: false, foreign_key: { to_table: :members }, index: false
      t.references :taker, null: false, foreign_key: { to_table: :members }, index: false
      t.string :taker_side, null: false, limit: 3
      t.decimal :price, precision: 20, scale: 8, null: false
      t.decimal :quantity, precision: 20, scale: 8, null: false
      t.decimal :total, precision: 32, scale: 16, null: false
      t.timestamps
      t.index %i[market_id id]
    end
  end
end
