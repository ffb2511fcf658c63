"""What the chaos tests are played with: an application, producers, faults, the history and its checker."""
