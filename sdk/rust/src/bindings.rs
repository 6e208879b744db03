//! What `wit-bindgen` makes of `wit/v0.1`. Policies use the names re-exported at the crate root;
//! this module is public only because [`export_policy!`](crate::export_policy) expands elsewhere.
//!
//! Natively the types also speak JSON under their WIT names, for tests and their cases. In a
//! component they do not: it would be weight that nothing uses.

wit_bindgen::generate!({
    path: "../../wit/v0.1",
    world: "spend-policy",
    additional_derives: [PartialEq, Eq],
    additional_type_attributes: {
        "countersign:policy/types@0.1.0/attribute": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/principal": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/purchase": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/seller": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/commitment": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/payment": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/tally": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/history": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/spend-request": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/verdict": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/reason": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/review-terms": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/unit": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/window": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/hold": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/obligation": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/decision": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/problem": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
        "countersign:policy/types@0.1.0/description": [#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]],
    },
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "countersign_sdk::bindings",
});
