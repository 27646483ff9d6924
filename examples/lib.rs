//! Programs to run and to copy from; see the examples beside this file.
