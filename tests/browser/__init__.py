"""A real browser that buys credit: `make browser`. Not collected by `make test`, since it needs
chromium, which no package that we depend on brings."""
