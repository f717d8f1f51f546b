//! The program as a person runs it: arguments in, text and exit code out.

mod cases;
mod check;
mod check_resources;
mod check_warnings;
mod documents;
mod explain;
mod explain_outbound;
mod keys;
mod program;
mod schema;
