"""Steps to episodes on disk: crash-safe, lossless, with the schema that data sets are made from."""
