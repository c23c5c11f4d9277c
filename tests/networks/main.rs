//! Networks and what they are made of: kernels against plain ones, transformer and text encoders against the reference, and the
//! stock transformer beside ours.

#[path = "../support/mod.rs"]
mod support;

mod attention;
mod linear;
mod nn;
mod plain;
mod stock;
mod text;
mod transformer;
