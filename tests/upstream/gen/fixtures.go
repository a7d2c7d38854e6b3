package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// filler gives every field a value of its own, the same on every run.
type filler struct {
	next  int
	depth int
	// Pod specs are large: only a kind that is one gets all of it.
	podSpecs bool
	// How many JSON schemas stand around this one: they hold each other in many ways.
	jsonSchemas int
}

func (f *filler) count() int { f.next++; return f.next }

func (f *filler) text() string { return fmt.Sprintf("t%d", f.count()) }

func (f *filler) fill(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *metav1.Time:
		*x = metav1.NewTime(time.Unix(int64(1700000000+f.count()), 0).UTC())
		return
	case *metav1.MicroTime:
		*x = metav1.NewMicroTime(time.Unix(int64(1700000000+f.count()), 123456000).UTC())
		return
	case *metav1.FieldsV1:
		x.Raw = []byte(`{"f:a":{}}`)
		return
	case *resource.Quantity:
		*x = resource.MustParse(fmt.Sprintf("%dm", f.count()*1001))
		return
	case *intstr.IntOrString:
		if f.count()%2 == 0 {
			*x = intstr.FromInt32(int32(f.next))
		} else {
			*x = intstr.FromString(f.text())
		}
		return
	case *runtime.RawExtension:
		x.Raw = []byte(`{"apiVersion":"example.com/v1","kind":"Any","n":1}`)
		return
	case *apiextensions.JSON:
		x.Raw = []byte(`[1,"a"]`)
		return
	case *apiextensions.JSONSchemaPropsOrBool:
		x.Allows = true
		if f.depth < 4 {
			x.Schema = &apiextensions.JSONSchemaProps{Type: "string"}
		}
		return
	case *apiextensions.JSONSchemaPropsOrArray:
		x.JSONSchemas = []apiextensions.JSONSchemaProps{{Type: "a"}, {Type: "b"}}
		return
	case *apiextensions.JSONSchemaPropsOrStringArray:
		x.Property = []string{"x", "y"}
		return
	}
	f.byKind(v)
}

func (f *filler) byKind(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(int64(f.count()) - 3)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(f.count()))
	case reflect.Float64, reflect.Float32:
		v.SetFloat(float64(f.count()) + 0.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(f.text()))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f.fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key)
			f.fill(value)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		f.members(v)
	}
}

func (f *filler) members(v reflect.Value) {
	if f.depth > 20 {
		return
	}
	if v.Type().Name() == "PodSpec" && !f.podSpecs {
		return
	}
	f.depth++
	defer func() { f.depth-- }()
	if v.Type().Name() == "JSONSchemaProps" {
		if f.jsonSchemas > 0 {
			v.FieldByName("Type").SetString(f.text())
			return
		}
		f.jsonSchemas++
		defer func() { f.jsonSchemas-- }()
	}
	for i := range v.NumField() {
		if v.Field(i).CanSet() && v.Type().Field(i).Name != "TypeMeta" {
			f.fill(v.Field(i))
		}
	}
}

// writeFixtures writes, for every served kind, an object with every field set and one with none, as upstream encodes them.
func writeFixtures(w *bufio.Writer, t *table) {
	var gvks []schema.GroupVersionKind
	for gvk := range t.kinds {
		if hasMetadata(t.kinds[gvk]) && !strings.HasSuffix(gvk.Kind, "List") {
			gvks = append(gvks, gvk)
		}
	}
	sort.Slice(gvks, func(i, j int) bool { return gvks[i].String() < gvks[j].String() })
	toJSON := json.NewSerializerWithOptions(json.DefaultMetaFactory, nil, nil, json.SerializerOptions{})
	toProto := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	for _, gvk := range gvks {
		for _, full := range []bool{true, false} {
			object, err := scheme.Scheme.New(gvk)
			must(err)
			if full {
				fill := filler{podSpecs: gvk.Kind == "Pod"}
				fill.fill(reflect.ValueOf(object).Elem())
			}
			object.GetObjectKind().SetGroupVersionKind(gvk)
			var text, wire bytes.Buffer
			must(toJSON.Encode(object, &text))
			if err := toProto.Encode(object, &wire); err != nil {
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", apiVersion(gvk), strings.TrimSpace(text.String()), base64.StdEncoding.EncodeToString(wire.Bytes()))
		}
	}
}

func hasMetadata(typ reflect.Type) bool {
	typ = deref(typ)
	field, ok := typ.FieldByName("ObjectMeta")
	return ok && field.Anonymous
}
