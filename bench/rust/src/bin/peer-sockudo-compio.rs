//! An echo server on sockudo-ws, on compio: io_uring, one thread, with the
//! flags that make a ring of one thread fast.

use compio::driver::{DriverType, ProactorBuilder};
use noria_peers::port;
use sockudo_ws::compio::{accept_async, net::TcpListener, runtime};
use sockudo_ws::{Config, Message};

fn main() -> sockudo_ws::Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor
        .driver_type(DriverType::IoUring)
        .single_issuer(true)
        .defer_taskrun(true);
    let rt = runtime::Runtime::builder().with_proactor(proactor).build()?;
    rt.block_on(serve())
}

async fn serve() -> sockudo_ws::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port())).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        runtime::spawn(async move {
            let _ = stream.set_nodelay(true);
            // Whoever only looks whether somebody listens ends it right here.
            let Ok((mut ws, _)) = accept_async(stream, Config::default()).await else {
                return;
            };
            while let Some(Ok(message)) = ws.next().await {
                match message {
                    Message::Text(_) | Message::Binary(_) => {
                        if ws.send(message).await.is_err() {
                            return;
                        }
                    }
                    Message::Close(_) => return,
                    _ => {} // it has answered already
                }
            }
        })
        .detach();
    }
}
