"""`railswitch init`: a first railswitch.toml, from what the monolith's database and routes show."""
