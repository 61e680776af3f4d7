// Package browser tests the status page with a real Chromium, which it steers by the DevTools protocol over a pipe, against
// a built docex-proxy dev. It has a target of its own, `make browser`, so that nothing else needs a browser.
//
// https://chromedevtools.github.io/devtools-protocol
package browser
