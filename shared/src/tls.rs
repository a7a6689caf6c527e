//! TLS for every HTTP client of the process.

/// Makes `ring` the process's TLS provider, unless another part of the program was first. To be called before a client is built.
pub fn install_provider() {
    // The error says that a provider is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
