"""Files that appear whole or not at all: records, the study directory, locks, shards, the cache. No torch."""
