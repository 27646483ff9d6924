//! Networks of namespaces, and the examples that make some.

mod diagnosis;
mod fault_lab;
mod outages;
mod tune;
