// Package page owns what all pages have in common: layout, components, forms, cookies, flash
// messages, assets, languages and the brand of a deployment; and how a browser is recognised
// and refused.
//
// Every page works without scripts. All that a page needs is embedded: assets/ has the files, of
// which htmx.min.js is htmx 2.0.11 as its authors publish it, and lang/ has one file for each
// language. The files *_templ.go are made of *.templ by "make docs".
package page

//go:generate env GOFLAGS= go tool -modfile=../../../tools.mod templ generate -log-level error
