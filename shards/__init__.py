"""From raw recordings to verified shards, and the stage that embeds them."""
