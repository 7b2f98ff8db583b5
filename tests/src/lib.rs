//! Network namespaces, servers and clients for the tests and the demonstration.
