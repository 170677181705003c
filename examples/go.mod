module github.com/imagelock/imagelock/examples

go 1.26.0

require github.com/imagelock/imagelock v0.0.0

replace github.com/imagelock/imagelock => ../
