"""`make bench`: every benchmark of ours, one after the other. Arguments go to bench.drain."""

from bench.drain import main

main()
