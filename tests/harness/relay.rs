//! A network between client and server that loses, repeats, delays and so reorders packets, as a
//! seed says; that can be cut, and can give a client another address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::Draw;

/// What happens to packets, each way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Of a thousand packets, so many are lost.
    pub(crate) lost: u64,
    /// Of a thousand packets, so many come twice.
    pub(crate) twice: u64,
    /// Longest delay; each packet has its own, so they overtake each other.
    pub(crate) delay_us_max: u64,
}

/// A network that does nothing to packets.
pub(crate) const FINE: Weather = Weather { lost: 0, twice: 0, delay_us_max: 0 };

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    way: Arc<Way>,
    running: JoinHandle<()>,
}

struct Way {
    weather: Weather,
    draw: Mutex<Draw>,
    cut: AtomicBool,
    lost: AtomicU64,
    passed: AtomicU64,
    /// The server's side of each client; forgotten when its address is to change.
    clients: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
}

impl Relay {
    pub(crate) async fn start(to: SocketAddr, weather: Weather, seed: u64) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let way = Arc::new(Way {
            weather,
            draw: Mutex::new(Draw::new(seed, &format!("{weather:?}"))),
            cut: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            clients: Mutex::default(),
        });
        let running = tokio::spawn(forward(way.clone(), front, to));
        Self { address, way, running }
    }

    /// Nothing passes, or all that the weather lets.
    pub(crate) fn cut(&self, cut: bool) {
        self.way.cut.store(cut, Ordering::SeqCst);
    }

    /// From now on the server sees every client at another address.
    pub(crate) fn move_clients(&self) {
        self.way.clients.lock().unwrap().clear();
    }

    /// Packets that were lost, and those that were not.
    pub(crate) fn packets(&self) -> (u64, u64) {
        (self.way.lost.load(Ordering::SeqCst), self.way.passed.load(Ordering::SeqCst))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn forward(way: Arc<Way>, front: Arc<UdpSocket>, to: SocketAddr) {
    let mut packet = vec![0; 1 << 16];
    loop {
        // An error is about a packet sent before, to somebody who is gone.
        let Ok((bytes, client)) = front.recv_from(&mut packet).await else { continue };
        let known = way.clients.lock().unwrap().get(&client).cloned();
        let back = match known {
            Some(back) => back,
            None => {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                way.clients.lock().unwrap().insert(client, back.clone());
                tokio::spawn(backward(way.clone(), back.clone(), front.clone(), client));
                back
            }
        };
        way.send(&packet[..bytes], &back, to);
    }
}

/// Until the client is seen at another address, and nothing comes for the old one.
async fn backward(way: Arc<Way>, back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
    let mut packet = vec![0; 1 << 16];
    while Arc::strong_count(&front) > 1 {
        let Ok((bytes, _)) = back.recv_from(&mut packet).await else { continue };
        way.send(&packet[..bytes], &front, client);
    }
}

impl Way {
    fn send(&self, packet: &[u8], from: &Arc<UdpSocket>, to: SocketAddr) {
        let Weather { lost, twice, delay_us_max } = self.weather;
        let mut draw = self.draw.lock().unwrap();
        if self.cut.load(Ordering::SeqCst) || draw.below(1_000) < lost {
            self.lost.fetch_add(1, Ordering::SeqCst);
            return;
        }
        self.passed.fetch_add(1, Ordering::SeqCst);
        let copies = if draw.below(1_000) < twice { 2 } else { 1 };
        for _ in 0..copies {
            let delay = Duration::from_micros(draw.below(delay_us_max + 1));
            let (packet, from) = (packet.to_vec(), from.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = from.send_to(&packet, to).await; // lost, then
            });
        }
    }
}
