//! What crosses the crates: conformance, interop, restarts, replay.
