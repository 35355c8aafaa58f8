//! The product between real peers: the release binary, SIPp, real sockets. One test at a time; they
//! share the addresses of `load.yml`.

mod calls;
mod emergency;
mod hostile;
mod loss;
mod resilience;
mod support;
