//! The world of `wit/v0.1`, as wasmtime's binding generator sees it. Everything outside
//! `convert.rs` works on core's types instead.

wasmtime::component::bindgen!({
    path: "../../wit/v0.1",
    world: "spend-policy",
    imports: { default: trappable },
    // A question is lowered into many guests and never copied on the way.
    ownership: Borrowing { duplicate_if_necessary: true },
});
