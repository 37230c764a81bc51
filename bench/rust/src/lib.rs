//! What the peers have in common.

/// The port that the command line says.
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
