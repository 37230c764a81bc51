//! What the peers share: the port, and the memory allocator.

/// Returns the port from the command line.
pub fn port() -> u16 {
    let mut args = std::env::args().skip(1);
    match (args.next().map(|s| s.parse()), args.next()) {
        (Some(Ok(port)), None) => port,
        _ => {
            eprintln!("usage: PORT");
            std::process::exit(2);
        }
    }
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
