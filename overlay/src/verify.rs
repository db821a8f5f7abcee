//! Pieces of a content and their proof under its BLAKE3.
