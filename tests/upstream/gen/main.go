// Command gen writes the facts of the Kubernetes API that Coracle's tables are made of: fields of types, kinds and
// fixtures. It reads upstream's public types by reflection and its published discovery documents, and writes names, numbers
// and flags only. Run from tests/upstream: go run ./gen ../../crates/api
package main

import (
	"bufio"
	"log"
	"os"
	"path/filepath"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go run ./gen FOLDER-OF-CRATE-API")
	}
	out := os.Args[1]
	table := collect()
	write(filepath.Join(out, "data", "schema.txt"), table.writeSchema)
	write(filepath.Join(out, "data", "kinds.txt"), func(w *bufio.Writer) { writeKinds(w, table) })
	write(filepath.Join(out, "testdata", "fixtures.txt"), func(w *bufio.Writer) { writeFixtures(w, table) })
}

func write(path string, fill func(*bufio.Writer)) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		log.Fatal(err)
	}
	file, err := os.Create(path)
	if err != nil {
		log.Fatal(err)
	}
	w := bufio.NewWriter(file)
	fill(w)
	if err := w.Flush(); err != nil {
		log.Fatal(err)
	}
	if err := file.Close(); err != nil {
		log.Fatal(err)
	}
}
