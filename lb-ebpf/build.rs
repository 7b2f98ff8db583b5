//! Tells the linker, which generates the code, what every kernel and machine that Evenkeel runs on
//! can do.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // Headers after the Ethernet header lie at odd places: without this, a word of theirs is
        // put together from single bytes. The kernel takes such loads wherever the processor does
        // (`HAVE_EFFICIENT_UNALIGNED_ACCESS`: x86-64, arm64). LLVM before 22 ignores it.
        //
        // Not so for probes, whose packets are copied to the stack: the verifier takes no word from
        // there that is not aligned.
        for object in [
            "evenkeel-xdp",
            "evenkeel-decap",
            "evenkeel-explain",
            "evenkeel-trace",
            "evenkeel-bench",
        ] {
            let feature = "--cpu-features=+allows-misaligned-mem-access";
            println!("cargo:rustc-link-arg-bin={object}={feature}");
        }
    }
}
