//! An echo server on sockudo-ws and compio: io_uring on one thread, with the flags that
//! make a single-threaded ring fast.

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
            // A client that only checks whether the server listens ends here.
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
