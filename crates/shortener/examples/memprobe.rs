#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn rss(tag:&str){let t=std::fs::read_to_string("/proc/self/status").unwrap();let l=t.lines().find(|l|l.starts_with("RssAnon")).unwrap().to_owned();println!("{tag}: {l}");}
fn main(){
 rss("start");
 let b=isbot::Bots::default(); rss("bots");
 println!("{}",b.is_bot("Mozilla/5.0 Googlebot")); rss("bots used");
 drop(b); rss("bots dropped");
 let c=linnet_shortener::cache::LocalCache::new(&Default::default()); rss("local cache");
 std::hint::black_box(&c);
}
