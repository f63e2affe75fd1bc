#![allow(warnings)]
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
use quick_cache::{Weighter, sync::Cache};
use std::sync::Arc;
fn rss(tag: &str) {
    let t = std::fs::read_to_string("/proc/self/status").unwrap();
    let l = t.lines().find(|l| l.starts_with("RssAnon")).unwrap().to_owned();
    println!("{tag}: {l}");
}
#[derive(Clone)]
struct W;
struct Held {
    loc: [u8; 104],
    t: u64,
    v: i64,
}
impl Weighter<Box<str>, Arc<(Vec<u8>, Held)>> for W {
    fn weight(&self, k: &Box<str>, v: &Arc<(Vec<u8>, Held)>) -> u64 {
        (200 + k.len() + v.0.len()) as u64
    }
}
fn main() {
    rss("start");
    let b = isbot::Bots::default();
    rss("bots");
    println!("{}", b.is_bot("Mozilla/5.0 Googlebot"));
    rss("bots used");
    println!("{}",b.is_bot("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130 Safari/537.36"));
    rss("bots used");
    drop(b);
    rss("bots dropped");
    let c = Cache::<Box<str>, Arc<(Vec<u8>, Held)>, _>::with_weighter(131072, 32 * 1024 * 1024, W);
    rss("links cache");
    let d = Cache::<Box<str>, Arc<(Vec<u8>, Held)>>::new(20000);
    rss("absent cache");
    for i in 0..100000u32 {
        let k = format!("{:07}", i);
        c.insert(k.into_boxed_str(), Arc::new((vec![7; 54], Held { loc: [0; 104], t: 0, v: 0 })));
    }
    rss("100k filled");
    std::hint::black_box((&c, &d));
}
