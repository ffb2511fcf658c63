"""The status page on a large database: server times of every page, and what open tabs cost a worker. `make bench-page`."""
