//! Pure parsers of vendors' formats.
