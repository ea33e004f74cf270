// Package media proves what becomes of a state folder whose medium forgets: flipped bits, pages of zeros or of other pages, files cut short.
//
// Whatever is damaged: no record is handed out that is not exactly what was stored, what is missing is told, no id is used twice, and the folder opens
// within a bounded time, once and again.
package media
