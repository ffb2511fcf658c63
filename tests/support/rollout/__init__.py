"""A rolling deployment: an application in two versions (`shop_v1`, `shop_v2`), its producer, and the scene they play in."""
