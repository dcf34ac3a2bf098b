"use strict";
// Data comes from JSON in this page and is shown by text nodes only: no markup is ever made from it.
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function add(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== "").map((child) => (child instanceof Node ? child : document.createTextNode(child))));
  return node;
}
const el = (name, attributes = {}, ...children) => add(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => add(document.createElementNS(SVG, name), attributes, children);

const minus = (text) => text.replace("-", "−");
const fixed = (value) => minus((Math.abs(value) < 0.005 ? 0 : value).toFixed(2));
const signed = (value) => `${value < 0 ? "" : "+"}${fixed(value)}`;
const short = (value) => value === null ? "none" : minus(Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 }));
const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.01 ? 2 : 0)} %`;
const some = (shown, all) => shown < all ? `${shown} of ${all.toLocaleString("en")} shown` : `all ${all}`;
